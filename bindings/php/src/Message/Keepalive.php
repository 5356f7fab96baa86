<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Internal\Quietly;

/**
 * TCP options by which the kernel notices that the server's machine is gone, before the server
 * gives this client's locks to another. They follow from the server's dead-peer timeout
 * (docs/protocol.md, section 1). Also how the kernel closes a connection.
 *
 * @internal
 */
final class Keepalive
{
    // Linux's numbers; PHP has no names for these two.
    private const TCP_USER_TIMEOUT = 18;
    private const TCP_RTO_MAX_MS = 44;

    /** The longest time, in seconds, before the kernel resends what was not acknowledged. */
    private const RETRANSMITTING = 2.5;

    /**
     * @param resource $stream
     * @return bool whether the kernel now watches the connection; false where PHP has no
     *     ext-sockets
     */
    public static function set($stream, int $deadPeerTimeout): bool
    {
        $isThere = function_exists('socket_import_stream') && function_exists('socket_set_option');
        if (!$isThere || !defined('TCP_KEEPIDLE')) {
            return false;
        }
        $socket = socket_import_stream($stream);
        if (!$socket instanceof \Socket) {
            return false;
        }
        $set = socket_set_option($socket, SOL_SOCKET, SO_KEEPALIVE, 1);
        foreach (self::options($deadPeerTimeout) as $option => $value) {
            $set = Quietly::call(static fn () => socket_set_option($socket, SOL_TCP, $option, $value)) && $set;
        }
        // Only kernels from 6.15 on have this option.
        Quietly::call(static fn () => socket_set_option($socket, SOL_TCP, self::TCP_RTO_MAX_MS, 1000));
        return $set;
    }

    /**
     * Makes the kernel reset the connection when it is closed, instead of ending it.
     *
     * @param resource $stream
     * @return bool false where PHP has no ext-sockets
     */
    public static function closeByReset($stream): bool
    {
        if (!function_exists('socket_import_stream') || !function_exists('socket_set_option')) {
            return false;
        }
        $socket = Quietly::call(static fn () => socket_import_stream($stream));
        return $socket instanceof \Socket
            && socket_set_option($socket, SOL_SOCKET, SO_LINGER, ['l_onoff' => 1, 'l_linger' => 0]);
    }

    /**
     * How long the server may be silent, in seconds, before a client must take its locks for lost.
     * The server gives them to others only after that.
     */
    public static function silenceMax(int $deadPeerTimeout): float
    {
        return 2 * self::budget($deadPeerTimeout) + self::RETRANSMITTING;
    }

    /**
     * The time, in seconds, after which a client's kernel gives up a server that does not answer.
     */
    public static function budget(int $deadPeerTimeout): int
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
