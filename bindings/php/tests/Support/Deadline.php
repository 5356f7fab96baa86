<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/** Waits for a condition that must come true, for as long as a busy machine may need. */
final class Deadline
{
    private const SECONDS = 30.0;

    /** @param callable(): bool $holds */
    public static function until(string $what, callable $holds): void
    {
        $end = microtime(true) + self::SECONDS;
        while (!$holds()) {
            if (microtime(true) > $end) {
                throw new RuntimeException("it has not come to this in time: $what");
            }
            usleep(2000);
        }
    }
}
