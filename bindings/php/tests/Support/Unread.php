<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

/** Bytes in the kernel that a process has not read yet, on TCP connections over 127.0.0.1. */
final class Unread
{
    /** Waits until the server at this port has not read something that a client has sent. */
    public static function byServer(int $port): void
    {
        self::await("the server at port $port has something to read", sprintf('0100007F:(%04X) [0-9A-F:]+', $port));
    }

    /**
     * Waits until a client of the server at this port has not read something that the server has
     * sent.
     *
     * @return string the client's address, as the server sees it
     */
    public static function byClient(int $port): string
    {
        $what = "a client of port $port has something to read";
        return '127.0.0.1:' . hexdec(self::await($what, sprintf('0100007F:([0-9A-F]+) 0100007F:%04X', $port)));
    }

    /**
     * Returns the part of the pattern that is in brackets, from the first connection that matches.
     */
    private static function await(string $what, string $addresses): string
    {
        // The connection is established, and its receive queue has bytes.
        $pattern = "/^ *\\d+: $addresses 01 [0-9A-F]{8}:(?!0{8})/m";
        $found = [];
        Deadline::until($what, static function () use ($pattern, &$found): bool {
            return preg_match($pattern, (string) file_get_contents('/proc/net/tcp'), $found) === 1;
        });
        return $found[1];
    }
}
