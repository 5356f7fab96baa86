<?php

declare(strict_types=1);

namespace Lockd\Message;

use Closure;
use Lockd\Exception\ConnectException;
use Lockd\Internal\Absence;
use Lockd\Internal\Deadline;
use Lockd\Internal\Quietly;

/**
 * Connects to a server by any of its host's addresses. PHP alone would spend the whole time limit
 * on the first address, even if its packets are lost. Knows nothing of what is sent on the
 * connection.
 *
 * @internal
 */
final class Dialer
{
    /** Linux's number; PHP has a name for it only with ext-sockets. */
    private const ECONNREFUSED = 111;

    /** What the messages begin with. */
    public const FAILED = 'cannot connect to ';

    /** What needs no resolver. */
    public const NUMERIC = '#^(?:unix:|tcp://(?:\[|\d+\.\d+\.\d+\.\d+:))#';

    /**
     * @param ?Closure(string): list<string> $resolve returns the addresses of a host; null: the
     *     system's resolver
     */
    public function __construct(private readonly ?Closure $resolve = null)
    {
    }

    /**
     * Tries the addresses in order, each for an equal share of the time that is left.
     *
     * @param float $within in seconds, not counting the resolver, whose time nothing limits
     * @return resource
     * @throws ConnectException
     */
    public function connect(Address $address, float $within)
    {
        $context = self::context();
        $remotes = $this->remotes($address);
        $deadline = Deadline::in($within);
        [$no, $error] = [0, ''];
        foreach ($remotes as $at => $remote) {
            $share = $deadline->remaining() / (count($remotes) - $at);
            if ($at > 0 && $share === 0.0) {
                break;
            }
            $stream = Quietly::call(static function () use ($remote, $share, $context, &$no, &$error) {
                $flags = STREAM_CLIENT_CONNECT;
                return stream_socket_client($remote, $no, $error, max(0.001, $share), $flags, $context);
            });
            if ($stream !== false && !self::isSelfConnected($stream)) {
                return $stream;
            }
            if ($stream !== false) {
                fclose($stream);
                [$no, $error] = [self::ECONNREFUSED, 'nothing listens there'];
            }
            $error = $error ?: Quietly::$warning;
        }
        $isAbsence = Absence::isErrno((int) $no) || Absence::isOfResolver($error);
        throw new ConnectException(self::FAILED . "$address->text: $error", isAbsence: $isAbsence);
    }

    /**
     * Begins to connect, without waiting.
     *
     * @param string $remote the address in numbers, or the path, so that no resolver is asked
     * @return resource
     * @throws ConnectException
     */
    public function begin(Address $address, string $remote)
    {
        [$no, $error] = [0, ''];
        $stream = Quietly::call(static function () use ($remote, &$no, &$error) {
            $flags = STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT;
            return stream_socket_client($remote, $no, $error, 0.001, $flags, self::context());
        });
        if ($stream === false) {
            $error = $error ?: Quietly::$warning;
            throw new ConnectException(self::FAILED . "$address->text: $error", isAbsence: true);
        }
        return $stream;
    }

    /**
     * Whether an attempt that {@see begin()} has made has led to a connection; null: not yet known.
     *
     * @param resource $stream
     */
    public static function isConnected($stream): ?bool
    {
        [$none, $write] = [null, [$stream]];
        $ready = Quietly::call(static fn () => stream_select($none, $write, $none, 0));
        if (stream_socket_get_name($stream, true) === false) {
            // select() takes no descriptor that is too high. Then the caller's limit ends the attempt.
            return $ready === 1 ? false : null;
        }
        return !self::isSelfConnected($stream);
    }

    /**
     * The addresses of a host in numbers, or the path; none if the host is unknown.
     *
     * @return list<string> in the form that PHP's streams take
     */
    public function numeric(Address $address): array
    {
        return array_values(array_filter($this->remotes($address), static fn (string $remote): bool =>
            preg_match(self::NUMERIC, $remote) === 1));
    }

    /** @return ?resource */
    private static function context()
    {
        return function_exists('stream_context_create')
            ? stream_context_create(['socket' => ['tcp_nodelay' => true]])
            : null;
    }

    /**
     * TCP can connect a socket to itself, if nothing listens on the port and the client's own port
     * happens to be the same one.
     *
     * @param resource $stream
     */
    public static function isSelfConnected($stream): bool
    {
        $name = stream_socket_get_name($stream, false);
        // A client's end of a Unix socket has no name.
        return $name !== false && $name !== '' && $name === stream_socket_get_name($stream, true);
    }

    /** @return non-empty-list<string> in the form that PHP's streams take */
    private function remotes(Address $address): array
    {
        if (!preg_match('#^tcp://([^:\[\]]+):(\d+)$#D', $address->remote, $parts)) {
            // A Unix socket, or an address of IPv6.
            return [$address->remote];
        }
        [, $host, $port] = $parts;
        $addresses = $this->resolve === null ? self::addressesOf($host) : ($this->resolve)($host);
        $remotes = array_map(static fn (string $address): string => "tcp://$address:$port", $addresses);
        // For an unknown host, PHP's own attempt gives the error message.
        return $remotes === [] ? [$address->remote] : $remotes;
    }

    /** @return list<string> IPv6 addresses in brackets */
    private static function addressesOf(string $host): array
    {
        if (!function_exists('socket_addrinfo_lookup') || !function_exists('socket_addrinfo_explain')) {
            // gethostbynamel knows only IPv4. The name itself comes last, for PHP to find other
            // addresses.
            return [...(function_exists('gethostbynamel') ? gethostbynamel($host) ?: [] : []), $host];
        }
        $found = Quietly::call(static fn () => socket_addrinfo_lookup($host, null, ['ai_socktype' => SOCK_STREAM]));
        $addresses = [];
        foreach ($found ?: [] as $one) {
            /** @var array{sin_addr?: string, sin6_addr?: string} $address */
            $address = socket_addrinfo_explain($one)['ai_addr'];
            $addresses[] = $address['sin_addr'] ?? '[' . ($address['sin6_addr'] ?? '') . ']';
        }
        return $addresses;
    }
}
