<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Exception\InvalidArgumentException;

/** Where a server is: `tcp://HOST[:PORT]` or `unix:/PATH`, or as a server logs what it listens on. */
final class Address
{
    /** The port of the `message` protocol. */
    private const PORT = 20934;

    /**
     * @param string $text as it was given: names are spread over several servers by it
     * @param string $remote as PHP's streams want it
     */
    private function __construct(
        public readonly string $text,
        public readonly string $remote,
        public readonly bool $isTcp,
    ) {
    }

    /** @throws InvalidArgumentException */
    public static function parse(string $text): self
    {
        $text = trim($text);
        if (preg_match('#^(?:message\+)?unix:(?://)?(/[^\0]*)$#D', $text, $parts)) {
            return new self($text, 'unix://' . $parts[1], false);
        }
        $tcp = '#^(?:tcp|message)://(\[[0-9A-Fa-f:.%\w]+\]|[^/\s:\[\]\0]+)(?::(\d{1,5}))?$#D';
        if (preg_match($tcp, $text, $parts)) {
            $port = (int) ($parts[2] ?? self::PORT);
            if ($port >= 1 && $port <= 65535) {
                return new self($text, "tcp://$parts[1]:$port", true);
            }
        }
        throw new InvalidArgumentException(
            "not the address of a server: \"$text\": it must be tcp://HOST, tcp://HOST:PORT or unix:/PATH"
        );
    }

    /**
     * @return array<string, self> the addresses in a list with commas, by their text
     * @throws InvalidArgumentException
     */
    public static function parseList(string $urls): array
    {
        $addresses = [];
        foreach (explode(',', $urls) as $url) {
            $address = self::parse($url);
            foreach ($addresses as $other) {
                if ($other->remote === $address->remote) {
                    throw new InvalidArgumentException("\"$address->text\" stands in the list twice");
                }
            }
            $addresses[$address->text] = $address;
        }
        return $addresses;
    }
}
