<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Internal\Quietly;

/**
 * Whether the programs that PHP starts inherit a stream. PHP does not mark its sockets as
 * close-on-exec, and does not promise that. So it is checked where a lock depends on it.
 *
 * @internal
 */
final class Inheritance
{
    /** Linux's number of the flag, in the octal digits that /proc shows. */
    private const CLOSE_ON_EXEC = 02000000;

    /**
     * False if the kernel closes the stream in programs that are started. Where the kernel has no
     * /proc, this cannot be known, and is taken to be as it is everywhere today: true.
     *
     * @param resource $stream a socket
     */
    public static function isSure($stream): bool
    {
        $socket = 'socket:[' . (fstat($stream)['ino'] ?? 0) . ']';
        foreach (Quietly::call(static fn () => scandir('/proc/self/fd')) ?: [] as $number) {
            if (Quietly::call(static fn () => readlink("/proc/self/fd/$number")) === $socket) {
                $info = (string) Quietly::call(static fn () => file_get_contents("/proc/self/fdinfo/$number"));
                return preg_match('/^flags:\s*([0-7]+)/m', $info, $flags) !== 1
                    || (octdec($flags[1]) & self::CLOSE_ON_EXEC) === 0;
            }
        }
        return true;
    }
}
