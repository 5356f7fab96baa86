<?php

declare(strict_types=1);

namespace Lockd\Symfony;

use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Internal\ClientSource;

/**
 * The addresses of servers as Symfony writes them. Knows the text only; connects to nothing.
 *
 * @internal
 */
final class Dsn
{
    /**
     * @param Client|string $client a client; or `lockd://HOST[:PORT][,HOST[:PORT]…]` or
     *     `lockd+unix:///PATH`, with the options `?owner=NAME&timeout=S`
     * @throws InvalidArgumentException
     */
    public static function source(Client|string $client): ClientSource
    {
        if ($client instanceof Client) {
            return new ClientSource($client);
        }
        $address = (string) strstr("$client?", '?', true);
        parse_str(substr($client, strlen($address) + 1), $options);
        $owner = $options['owner'] ?? null;
        $timeout = $options['timeout'] ?? '5';
        $unknown = array_diff_key($options, ['owner' => true, 'timeout' => true]);
        if ($unknown !== [] || is_array($owner) || !is_numeric($timeout)) {
            throw new InvalidArgumentException("a DSN has the options owner and timeout, in seconds: \"$client\"");
        }
        if (preg_match('#^lockd://([^/]+)/?$#D', $address, $parts)) {
            $url = 'tcp://' . str_replace(',', ',tcp://', $parts[1]);
        } elseif (preg_match('#^lockd\+unix://(/.+)$#D', $address, $parts)) {
            $url = 'unix:' . $parts[1];
        } else {
            throw new InvalidArgumentException(
                "a DSN is lockd://HOST[:PORT][,HOST[:PORT]…] or lockd+unix:///PATH, and not \"$client\""
            );
        }
        return new ClientSource($url, $owner, (float) $timeout);
    }
}
