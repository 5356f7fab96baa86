<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Exception\ConnectException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Internal\Quietly;

/**
 * The address of a server: `tcp://HOST[:PORT]`, `tls://HOST[:PORT]` or `unix:/PATH`, or in the form
 * in which a server logs what it listens on. After a host may follow a `?` and, separated by `&`,
 * `auth-token-file=FILE`, `resume`, and for TLS `ca=FILE`, `cert=FILE` and `key=FILE`; after a path
 * `?resume`.
 */
final class Address
{
    /** The port of the `message` protocol. */
    private const PORT = 20934;

    /** What may follow the `?`. */
    private const OPTIONS = '#^(?:(?:(?:auth-token-file|ca|cert|key)=[^&]+|resume)(?:&(?!$)|$))+$#D';

    /** Asks for a session that resumes. */
    private const RESUME = 'resume';

    /**
     * The environment variable that names the file with the secret, for addresses that do not name
     * one.
     */
    private const SECRET_FILE = 'LOCKD_AUTH_TOKEN_FILE';

    /**
     * @param string $url the address as given
     * @param string $text the address without the `?` and what follows: the key by which names are
     *     spread over several servers
     * @param string $remote in the form that PHP's streams take
     * @param ?string $secretFile the file with the server's secret
     * @param bool $resumes whether it asks for a session that resumes
     */
    private function __construct(
        public readonly string $url,
        public readonly string $text,
        public readonly string $remote,
        public readonly bool $isTcp,
        public readonly bool $isTls = false,
        private readonly ?string $secretFile = null,
        public readonly bool $resumes = false,
    ) {
    }

    /**
     * The secret for the server, if there is one: from the file that the address names, or else
     * from the file that the environment variable LOCKD_AUTH_TOKEN_FILE names.
     *
     * @throws ConnectException if the file cannot be read
     */
    public function secret(): ?string
    {
        $ofProcess = function_exists('getenv') ? getenv(self::SECRET_FILE) : false;
        $file = $this->secretFile ?? ($ofProcess ?: null);
        if ($file === null) {
            return null;
        }
        $secret = Quietly::call(static fn () => file_get_contents($file));
        if ($secret === false || Quietly::$warning !== '') {
            $where = $this->secretFile === null ? 'the environment variable ' . self::SECRET_FILE : 'auth-token-file=';
            // PHP's warning ends with the reason of the system.
            $reason = preg_match('/: ([^:]+)$/D', Quietly::$warning, $parts) ? ": $parts[1]" : '';
            throw new ConnectException("the secret in $file, which $where names, cannot be read$reason");
        }
        return trim($secret);
    }

    /** @throws InvalidArgumentException */
    public static function parse(string $text): self
    {
        $text = trim($text);
        if (preg_match('#^(?:message\+)?unix:(?://)?(/[^\0]*)$#D', $text, $parts)) {
            $resumes = str_ends_with($parts[1], '?' . self::RESUME);
            $cut = $resumes ? -strlen('?' . self::RESUME) : null;
            $path = substr($parts[1], 0, $cut);
            return new self($text, substr($text, 0, $cut), "unix://$path", false, resumes: $resumes);
        }
        $address = explode('?', $text, 2);
        $tcp = '#^(tcp|message|tls|message\+tls)://(\[[0-9A-Fa-f:.%\w]+\]|[^/\s:\[\]\0]+)(?::([1-9]\d{0,4}))?$#D';
        if (preg_match($tcp, $address[0], $parts) && preg_match(self::OPTIONS, $address[1] ?? self::RESUME)) {
            $port = (int) ($parts[3] ?? self::PORT);
            if ($port >= 1 && $port <= 65535) {
                $isTls = str_ends_with($parts[1], 'tls');
                if (!$isTls && preg_match('#(?:^|&)(?:ca|cert|key)=#', $address[1] ?? '')) {
                    // Otherwise the connection would not be encrypted, although the options ask for
                    // TLS.
                    throw new InvalidArgumentException("not the address of a server: \"$text\": "
                        . 'ca=, cert= and key= are for tls://');
                }
                preg_match('#(?:^|&)auth-token-file=([^&]+)#', $address[1] ?? '', $file);
                $resumes = in_array(self::RESUME, explode('&', $address[1] ?? ''), true);
                $remote = "tcp://$parts[2]:$port";
                return new self($text, $address[0], $remote, true, $isTls, $file[1] ?? null, $resumes);
            }
        }
        $meant = self::withScheme($text);
        $said = $meant === null ? self::meantBy($text) : "it has no scheme; did you mean $meant?";
        throw new InvalidArgumentException("not the address of a server: \"$text\": " . ($said
            ?? 'it must be tcp://HOST, tcp://HOST:PORT (a port from 1 to 65535, without leading zeros), tls://… or '
            . 'unix:/PATH, with ?auth-token-file=FILE after the host if the server requires a secret, and ?resume for '
            . 'a session that resumes'));
    }

    /**
     * The addresses of a list, each with or without `resume`.
     *
     * @param ?bool $resume null: as they are
     * @throws InvalidArgumentException
     */
    public static function withResume(string $urls, ?bool $resume): string
    {
        if ($resume === null) {
            return $urls;
        }
        $texts = [];
        foreach (self::parseList($urls) as $address) {
            $options = $address->isTcp ? explode('?', $address->url, 2)[1] ?? '' : '';
            $options = array_filter(explode('&', $options), static fn (string $option): bool =>
                $option !== self::RESUME && $option !== '');
            $options = implode('&', $resume ? [...$options, self::RESUME] : $options);
            $texts[] = $address->text . ($options === '' ? '' : "?$options");
        }
        return implode(',', $texts);
    }

    /** The address that was probably meant by a text without a scheme; null: unknown. */
    private static function withScheme(string $text): ?string
    {
        if ($text === '' || str_contains($text, '://') || str_starts_with($text, 'unix:')) {
            return null;
        }
        $meant = ($text[0] === '/' ? 'unix:' : 'tcp://') . $text;
        try {
            self::parse($meant);
            return $meant;
        } catch (InvalidArgumentException) {
            return null;
        }
    }

    /** Advice for an address with a scheme of another protocol; null: none. */
    private static function meantBy(string $text): ?string
    {
        $port = 'with the port of a `message` listener (20934 unless the server is told another)';
        return match (strstr($text, ':', true)) {
            'lockd', 'glockd' => 'clients speak `message`, not the protocols lockd and glockd, which have other ports: '
                . "write tcp://HOST:PORT $port",
            'lockd+tls', 'glockd+tls' => 'clients speak `message`, not the protocols lockd and glockd, which have '
                . 'other ports: write tls://HOST:PORT with the port of a `message+tls` listener',
            'lockd+unix', 'glockd+unix' => 'clients speak `message`, not the protocols lockd and glockd: write '
                . 'unix:/PATH with the path of a `message+unix` listener',
            'http', 'https', 'ws', 'wss', 'glockd+ws', 'glockd+ws+tls', 'message+ws', 'message+ws+tls' =>
                "clients speak `message`, neither HTTP nor WebSocket: write tcp://HOST:PORT (or tls://HOST:PORT) $port",
            'ssl', 'tcps', 'tcp+tls' => 'TLS is written tls://HOST:PORT',
            default => null,
        };
    }

    /**
     * @return array<string, self> the addresses in a comma-separated list, by their text
     * @throws InvalidArgumentException
     */
    public static function parseList(string $urls): array
    {
        $addresses = [];
        foreach (explode(',', $urls) as $url) {
            $address = self::parse($url);
            foreach ($addresses as $other) {
                if ($other->remote === $address->remote) {
                    throw new InvalidArgumentException("\"$address->text\" is in the list twice");
                }
            }
            $addresses[$address->text] = $address;
        }
        return $addresses;
    }
}
