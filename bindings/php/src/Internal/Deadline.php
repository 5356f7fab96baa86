<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Exception\InvalidArgumentException;

/**
 * The end of a wait, by the clock that nobody sets.
 *
 * @internal
 */
final class Deadline
{
    private function __construct(private readonly ?float $at)
    {
    }

    /**
     * @param ?float $seconds from now on; null: never
     * @throws InvalidArgumentException for a number below zero, or none
     */
    public static function in(?float $seconds): self
    {
        if ($seconds !== null && !($seconds >= 0.0)) {
            throw new InvalidArgumentException('a time limit is a number of seconds from 0 up, or null for none');
        }
        return new self($seconds === null ? null : self::now() + $seconds);
    }

    /** Seconds, from 0 up; INF if there is no end. */
    public function remaining(): float
    {
        return $this->at === null ? INF : max(0.0, $this->at - self::now());
    }

    /** For how long it has been over, in seconds; 0 if it is not. */
    public function overdue(): float
    {
        return $this->at === null ? 0.0 : max(0.0, self::now() - $this->at);
    }

    public function isOver(): bool
    {
        return $this->remaining() === 0.0;
    }

    public static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}
