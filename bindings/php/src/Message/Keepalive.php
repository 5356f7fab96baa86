<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Internal\Quietly;

/**
 * How the kernel finds out that a server's machine is gone, before the server gives this client's locks to another.
 * The figures follow from the server's dead-peer timeout, as docs/protocol.md has them in section 1.
 *
 * @internal
 */
final class Keepalive
{
    // Of Linux; PHP has no names for these two.
    private const TCP_USER_TIMEOUT = 18;
    private const TCP_RTO_MAX_MS = 44;

    /** The longest time, in seconds, that the kernel takes to send again what was not acknowledged. */
    private const RETRANSMITTING = 2.5;

    /**
     * @param resource $stream
     * @return bool whether the kernel looks after the connection now; false where PHP has no ext-sockets
     */
    public static function set($stream, int $deadPeerTimeout): bool
    {
        foreach (['socket_import_stream', 'socket_set_option'] as $function) {
            if (!function_exists($function) || !defined('TCP_KEEPIDLE')) {
                return false;
            }
        }
        $socket = socket_import_stream($stream);
        if (!$socket instanceof \Socket) {
            return false;
        }
        $set = socket_set_option($socket, SOL_SOCKET, SO_KEEPALIVE, 1);
        foreach (self::options($deadPeerTimeout) as $option => $value) {
            $set = Quietly::call(static fn () => socket_set_option($socket, SOL_TCP, $option, $value)) && $set;
        }
        // Only kernels from 6.15 on have it.
        Quietly::call(static fn () => socket_set_option($socket, SOL_TCP, self::TCP_RTO_MAX_MS, 1000));
        return $set;
    }

    /**
     * After what time without a sign of life, in seconds, a client must take its locks for lost. The server gives
     * them to others only later.
     */
    public static function silenceMax(int $deadPeerTimeout): float
    {
        return 2 * self::budget($deadPeerTimeout) + self::RETRANSMITTING;
    }

    /** How long a client's kernel takes to give up a server that does not answer, in seconds. */
    private static function budget(int $deadPeerTimeout): int
    {
        return intdiv(7 * $deadPeerTimeout, 25);
    }

    /** @return array<int, int> */
    private static function options(int $deadPeerTimeout): array
    {
        $budget = self::budget($deadPeerTimeout);
        $interval = max(1, intdiv($budget, 7));
        $probing = intdiv(4 * $budget + 6, 7);
        $idle = $budget - intdiv($probing, $interval) * $interval;
        return [
            TCP_KEEPIDLE => $idle,
            TCP_KEEPINTVL => $interval,
            TCP_KEEPCNT => intdiv($budget - $idle, $interval),
            self::TCP_USER_TIMEOUT => $budget * 1000,
        ];
    }
}
