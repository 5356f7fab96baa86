<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Exception\InvalidArgumentException;

/**
 * The end of a wait, by the monotonic clock, which is never set back.
 *
 * @internal
 */
final class Deadline
{
    private function __construct(private readonly ?float $at)
    {
    }

    /**
     * @param ?float $seconds from now on; null: no deadline
     * @throws InvalidArgumentException for a number below zero, or NAN
     */
    public static function in(?float $seconds): self
    {
        if ($seconds !== null && !($seconds >= 0.0)) {
            throw new InvalidArgumentException('a time limit is a number of seconds from 0 up, or null for none');
        }
        return new self($seconds === null ? null : self::now() + $seconds);
    }

    /** Seconds, from 0 up; INF if there is no deadline. */
    public function remaining(): float
    {
        return $this->at === null ? INF : max(0.0, $this->at - self::now());
    }

    /** How many seconds ago the deadline passed; 0 if it has not passed. */
    public function overdue(): float
    {
        return $this->at === null ? 0.0 : max(0.0, self::now() - $this->at);
    }

    public function isOver(): bool
    {
        return $this->remaining() === 0.0;
    }

    /** A number of seconds as a message shows it: to the millisecond. */
    public static function text(float $seconds): string
    {
        return $seconds < 1e12 ? (string) ((int) ($seconds * 1000.0 + 0.5) / 1000) : (string) $seconds;
    }

    public static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}
