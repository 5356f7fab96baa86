<?php

declare(strict_types=1);

namespace Lockd\Symfony;

use Lockd\Exception\InvalidArgumentException;
use Lockd\Internal\ClientSource;
use Lockd\Message\Address;

/**
 * The address of servers, and how to use them, as Symfony writes it: `lockd://HOST[:PORT]`,
 * `lockd+tls://HOST[:PORT]` (both with further hosts after commas) or `lockd+unix:///PATH`, and
 * options after a `?`. Several hosts are several servers, or with the option `cluster` the places of
 * one. Knows the text only: it connects to nothing.
 *
 * Values may be percent-encoded. A plus stands for itself.
 *
 * @internal
 */
final class Dsn
{
    /** Options that go into the address of each host. */
    private const FILES = ['auth-token-file', 'ca', 'cert', 'key'];

    /** Options without a value. */
    private const FLAGS = ['resume', 'cluster'];

    /** @var list<string> */
    private const OPTIONS = ['owner', 'timeout', 'wait', ...self::FLAGS, ...self::FILES];

    /** Ports that are meant for other protocols, by their number. */
    private const TEXT_PORTS = ['2626' => 'lockd', '9999' => 'glockd'];

    private const FORMS = 'lockd://HOST[:PORT][,HOST[:PORT]…], lockd+tls://HOST[:PORT][,…] or lockd+unix:///PATH';

    /**
     * @param string $url for {@see \Lockd\Client::connect()}
     * @param ?string $owner what the client is called in listings
     * @param float $timeout for connecting and for answers, in seconds
     * @param ?float $wait how long a blocking acquire waits, in seconds; null: without limit
     */
    private function __construct(
        public readonly string $url,
        public readonly ?string $owner,
        public readonly float $timeout,
        public readonly ?float $wait,
    ) {
    }

    /**
     * Whether a connection in a Symfony configuration is meant for this package, so that a mistake
     * in it is reported here. The protocols of the server and the addresses of {@see \Lockd\Client}
     * count too: they are easily written instead.
     */
    public static function isMeantBy(mixed $connection): bool
    {
        $ours = '#^(?:(?:g?lockds?|message)(?:\+\w+)*|tcp|tls|unix):#';
        return is_string($connection) && preg_match($ours, $connection) === 1;
    }

    /** @throws InvalidArgumentException */
    public static function parse(string $dsn): self
    {
        $parts = explode('?', $dsn, 2);
        $options = self::options($parts[1] ?? '', $dsn);
        $files = array_intersect_key($options, array_flip(self::FILES));
        $url = self::url($parts[0], $files, isset($options['cluster']), $dsn);
        return new self(
            isset($options['resume']) ? Address::withResume($url, true) : $url,
            $options['owner'] ?? null,
            self::seconds('timeout', $options, $dsn) ?? 5.0,
            self::seconds('wait', $options, $dsn),
        );
    }

    /** @throws InvalidArgumentException */
    public function source(): ClientSource
    {
        return new ClientSource($this->url, $this->owner, $this->timeout);
    }

    /** What two DSNs have in common if one client can serve both. */
    public function client(): string
    {
        return serialize([$this->url, $this->owner, $this->timeout]);
    }

    /**
     * @return array<string, string> values by option, decoded
     * @throws InvalidArgumentException
     */
    private static function options(string $query, string $dsn): array
    {
        $options = [];
        foreach ($query === '' ? [] : explode('&', $query) as $option) {
            $parts = explode('=', $option, 2);
            [$name, $value] = [$parts[0], $parts[1] ?? ''];
            if (!in_array($name, self::OPTIONS, true)) {
                throw new InvalidArgumentException("a DSN has no option \"$name\": the options are "
                    . implode(', ', self::OPTIONS) . ", and not as in \"$dsn\"");
            }
            $isFlag = in_array($name, self::FLAGS, true);
            if ($isFlag && $option !== $name) {
                throw new InvalidArgumentException("the option \"$name\" has no value: \"$dsn\"");
            }
            if (($value === '' && !$isFlag) || isset($options[$name])) {
                throw new InvalidArgumentException("the option \"$name\" needs one value: \"$dsn\"");
            }
            $options[$name] = rawurldecode($value);
        }
        return $options;
    }

    /**
     * @param array<string, string> $options
     * @throws InvalidArgumentException
     */
    private static function seconds(string $name, array $options, string $dsn): ?float
    {
        $value = $options[$name] ?? null;
        if ($value === null) {
            return null;
        }
        if (!is_numeric($value) || !is_finite((float) $value) || (float) $value < 0.0) {
            throw new InvalidArgumentException("the option \"$name\" is a number of seconds: \"$dsn\"");
        }
        if ($name === 'timeout' && (float) $value === 0.0) {
            throw new InvalidArgumentException("the option \"timeout\" is a number of seconds above 0: \"$dsn\"");
        }
        return (float) $value;
    }

    /**
     * @param array<string, string> $files
     * @param bool $isCluster whether the hosts are the places of one server
     * @throws InvalidArgumentException
     */
    private static function url(string $address, array $files, bool $isCluster, string $dsn): string
    {
        if (preg_match('#^lockd\+unix://(/.+)$#D', $address, $parts)) {
            if ($files !== []) {
                throw new InvalidArgumentException('the option "' . array_key_first($files) . '" is for lockd:// and '
                    . "lockd+tls://; for a Unix socket LOCKD_AUTH_TOKEN_FILE names the file with the secret: \"$dsn\"");
            }
            if ($isCluster) {
                throw new InvalidArgumentException("the option \"cluster\" is for lockd:// and lockd+tls://: \"$dsn\"");
            }
            $path = rawurldecode($parts[1]);
            self::mustNotSplit($path, ',', $dsn);
            return "unix:$path";
        }
        if (!preg_match('#^lockd(\+tls)?://([^/]+)/?$#D', $address, $parts)) {
            throw new InvalidArgumentException('a DSN is ' . self::FORMS . ", and not \"$dsn\"");
        }
        $query = [];
        foreach ($files as $name => $file) {
            self::mustNotSplit($file, ',&', $dsn);
            $query[] = "$name=$file";
        }
        $scheme = $parts[1] === '' ? 'tcp' : 'tls';
        if ($scheme === 'tcp' && array_intersect_key($files, ['ca' => 1, 'cert' => 1, 'key' => 1]) !== []) {
            throw new InvalidArgumentException("ca=, cert= and key= are for lockd+tls://, and not as in \"$dsn\"");
        }
        $hosts = explode(',', $parts[2]);
        foreach ($hosts as $host) {
            self::mustBeHost($host, $dsn);
            self::mustNotBeTextPort($host, $dsn);
        }
        $servers = $isCluster ? [implode(',', $hosts)] : $hosts;
        $query = $query === [] ? '' : '?' . implode('&', $query);
        return implode(',', array_map(static fn (string $server): string => "$scheme://$server$query", $servers));
    }

    /** Lists of addresses have no way to write a path with one of these characters. */
    private static function mustNotSplit(string $path, string $characters, string $dsn): void
    {
        if (strpbrk($path, $characters) !== false) {
            throw new InvalidArgumentException("a path here may contain none of the characters $characters: \"$dsn\"");
        }
    }

    /** The address as {@see Address} has it would say nothing to someone who has written a DSN. */
    private static function mustBeHost(string $host, string $dsn): void
    {
        if (str_contains($host, '@')) {
            throw new InvalidArgumentException('a DSN of a lockd has neither user nor password: the secret is in a '
                . "file, which the option auth-token-file=FILE names, and not as in \"$dsn\"");
        }
        try {
            Address::parse("tcp://$host");
        } catch (InvalidArgumentException) {
            throw new InvalidArgumentException("\"$host\" is not a host, or a host with a port from 1 to 65535: "
                . 'a DSN is ' . self::FORMS . ", and not \"$dsn\"");
        }
    }

    private static function mustNotBeTextPort(string $host, string $dsn): void
    {
        $port = strrchr($host, ':');
        $protocol = $port === false ? null : self::TEXT_PORTS[substr($port, 1)] ?? null;
        if ($protocol !== null) {
            throw new InvalidArgumentException("$port is the port of the server's text protocol \"$protocol\", and a "
                . "store speaks `message`: write the port of a `message` listener, 20934 by default, not \"$dsn\"");
        }
    }
}
