<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

/**
 * Stops a process as a debugger or an overloaded machine would: the kernel still answers for it.
 */
final class Pause
{
    public static function begin(int $pid): void
    {
        posix_kill($pid, SIGSTOP);
        // Until its last thread has stopped, the process may still act.
        Deadline::until("process $pid is stopped", static function () use ($pid): bool {
            $threads = glob("/proc/$pid/task/*/stat") ?: [];
            $states = array_map(static fn (string $file): string => (string) @file_get_contents($file), $threads);
            return preg_grep('/\) T /', $states, PREG_GREP_INVERT) === [];
        });
    }

    public static function end(int $pid): void
    {
        posix_kill($pid, SIGCONT);
    }
}
