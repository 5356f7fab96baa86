<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Exception\ConnectException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Internal\Quietly;

/**
 * The address of a server: `tcp://HOST[:PORT]`, `tls://HOST[:PORT]` or `unix:/PATH`, or in the form
 * in which a server logs what it listens on. A server may have several places, of which one is active:
 * `tcp://HOST[:PORT],HOST[:PORT]`. After the last host may follow a `?` and, separated by `&`,
 * `auth-token-file=FILE`, `resume`, and for TLS `ca=FILE`, `cert=FILE` and `key=FILE`; after a path
 * `?resume`.
 */
final class Address
{
    /** The port of the `message` protocol. */
    private const PORT = 20934;

    /** What may follow the `?`. */
    private const OPTIONS = '#^(?:(?:(?:auth-token-file|ca|cert|key)=[^&]+|resume)(?:&(?!$)|$))+$#D';

    /** A host and its port, as one place of a server. */
    private const PLACE = '#^(\[[0-9A-Fa-f:.%\w]+\]|[^/\s:\[\]\0,]+)(?::([1-9]\d{0,4}))?$#D';

    /** A part of a list that is a server, and not one more place of the one before it. */
    private const SERVER = '#^(?:/|(?:\w+\+)?unix:)|://#';

    /** What a part of a list begins with that can have no further places. */
    private const UNIX = '#^(?:\w+\+)?unix:#';

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
        private readonly array $places = [],
    ) {
    }

    /**
     * The places of the server, in the order in which they are tried.
     *
     * @return non-empty-list<self>
     */
    public function places(): array
    {
        return $this->places === [] ? [$this] : $this->places;
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
        $address = self::parseHosts($text);
        if ($address !== null) {
            return $address;
        }
        $meant = self::withScheme($text);
        $said = $meant === null ? self::meantBy($text) : "it has no scheme; did you mean $meant?";
        throw new InvalidArgumentException("not the address of a server: \"$text\": " . ($said
            ?? 'it must be tcp://HOST, tcp://HOST:PORT (a port from 1 to 65535, without leading zeros), tls://… or '
            . 'unix:/PATH, with ,HOST:PORT for each further place of the same server, ?auth-token-file=FILE after the '
            . 'last host if the server requires a secret, and ?resume for a session that resumes'));
    }

    /**
     * An address with one or several hosts; null if it is not an address.
     *
     * @throws InvalidArgumentException
     */
    private static function parseHosts(string $text): ?self
    {
        $address = explode('?', $text, 2);
        [$hosts, $options] = [$address[0], $address[1] ?? null];
        $isValid = preg_match('#^(tcp|message|tls|message\+tls)://(.+)$#sD', $hosts, $parts)
            && preg_match(self::OPTIONS, $options ?? self::RESUME);
        if (!$isValid) {
            return null;
        }
        [, $scheme, $hosts] = $parts;
        $isTls = str_ends_with($scheme, 'tls');
        $remotes = self::remotes($hosts);
        if ($remotes === []) {
            return null;
        }
        if (!$isTls && preg_match('#(?:^|&)(?:ca|cert|key)=#', $options ?? '')) {
            // Otherwise the connection would not be encrypted, although the options ask for TLS.
            throw new InvalidArgumentException("not the address of a server: \"$text\": "
                . 'ca=, cert= and key= are for tls://');
        }
        $query = $options === null ? '' : "?$options";
        preg_match('#(?:^|&)auth-token-file=([^&]+)#', $options ?? '', $file);
        $file = $file[1] ?? null;
        $resumes = in_array(self::RESUME, explode('&', $options ?? ''), true);
        [$places, $names] = [[], []];
        foreach ($remotes as [$name, $remote]) {
            $at = "$scheme://$name";
            $places[] = new self("$at$query", $at, $remote, true, $isTls, $file, $resumes);
            $names[] = $name;
        }
        if (!isset($places[1])) {
            return $places[0];
        }
        self::mustDiffer($places);
        $url = "$scheme://" . implode(',', $names) . $query;
        sort($names, SORT_STRING);
        return new self($url, "$scheme://" . implode(',', $names), '', true, $isTls, $file, $resumes, $places);
    }

    /**
     * The places in a list of hosts.
     *
     * @return list<array{string, string}> each as it is written, and in the form that PHP's streams
     *     take; empty: one of them is no host
     */
    private static function remotes(string $hosts): array
    {
        $remotes = [];
        foreach (explode(',', $hosts) as $name) {
            if (!preg_match(self::PLACE, $name, $parts)) {
                return [];
            }
            $port = (int) ($parts[2] ?? self::PORT);
            if ($port < 1 || $port > 65535) {
                return [];
            }
            $remotes[] = [$name, "tcp://$parts[1]:$port"];
        }
        return $remotes;
    }

    /**
     * @param list<self> $places
     * @throws InvalidArgumentException two of them are the same
     */
    private static function mustDiffer(array $places): void
    {
        $remotes = [];
        foreach ($places as $place) {
            if (in_array($place->remote, $remotes, true)) {
                throw new InvalidArgumentException("\"$place->text\" is in the list twice");
            }
            $remotes[] = $place->remote;
        }
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
            // The path of a Unix socket may have a ? of its own.
            $parts = $address->isTcp ? explode('?', $address->url, 2) : [$address->text];
            $options = array_filter(explode('&', $parts[1] ?? ''), static fn (string $option): bool =>
                $option !== self::RESUME && $option !== '');
            $options = implode('&', $resume ? [...$options, self::RESUME] : $options);
            $texts[] = $parts[0] . ($options === '' ? '' : "?$options");
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
        [$addresses, $places] = [[], []];
        foreach (self::split($urls) as $url) {
            $address = self::parse($url);
            $places = [...$places, ...$address->places()];
            self::mustDiffer($places);
            $addresses[$address->text] = $address;
        }
        return $addresses;
    }

    /**
     * The servers in a list. A part without a scheme is one more place of the server before it.
     *
     * @return list<string>
     * @throws InvalidArgumentException
     */
    private static function split(string $urls): array
    {
        [$servers, $last] = [[], null];
        foreach (explode(',', $urls) as $part) {
            $part = trim($part);
            if ($last === null || preg_match(self::SERVER, $part) || preg_match(self::UNIX, $last)) {
                $servers[] = $last = $part;
            } elseif (str_contains($last, '?')) {
                throw new InvalidArgumentException("not the address of a server: \"$part\": it has no scheme, and one "
                    . 'more place of a server comes before the ? and the options');
            } else {
                $last .= ",$part";
                $servers[count($servers) - 1] = $last;
            }
        }
        return $servers;
    }
}
