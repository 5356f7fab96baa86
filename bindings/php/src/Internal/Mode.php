<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Exception\InvalidArgumentException;
use Lockd\Message\Result;

/**
 * How a lock is held: how many holders it allows at once. A holder is promised that there are never
 * more than that while it holds the lock. A plain value; the rule that it expresses is the
 * server's.
 *
 * @internal
 */
final class Mode
{
    /** The highest limit. */
    public const HOLDERS_MAX = 16_777_215;

    private function __construct(
        /** How many holders it allows: 1 if it is exclusive; null: any number. */
        public readonly ?int $holdersMax,
    ) {
    }

    /**
     * The mode that a caller asks for with two arguments: exclusive without either of them.
     *
     * `$shared` takes numbers only to refuse them. As a plain `bool` it would be true for the 4 of
     * `acquire($name, 0.0, 4)` in a file without strict types, and the lock would have no limit.
     *
     * @throws InvalidArgumentException `$shared` is a number, they contradict each other, or the
     *     limit is out of range
     */
    public static function of(bool|int|float $shared, ?int $atMost): self
    {
        if (!is_bool($shared)) {
            throw new InvalidArgumentException(
                "shared is true or false, not $shared: for a lock with at most so many holders name the argument, as "
                . 'in atMost: 4'
            );
        }
        if ($atMost === null) {
            return new self($shared ? null : 1);
        }
        if ($shared) {
            throw new InvalidArgumentException(
                'a shared lock has any number of holders, a limited lock at most so many: give either shared or atMost'
            );
        }
        if ($atMost < 1 || $atMost > self::HOLDERS_MAX) {
            throw new InvalidArgumentException(
                "atMost is $atMost, but a lock has at most 1 to " . self::HOLDERS_MAX . ' holders'
            );
        }
        return new self($atMost);
    }

    /**
     * How many holders a lock, a holder or a waiter allows, as the `message` protocol shows it;
     * null: any number.
     *
     * @param ?string $mode the mode that is shown with it
     */
    public static function limitIn(Result $shown, ?string $mode): ?int
    {
        return $mode === 'exclusive' ? 1 : $shown->integer('limit');
    }

    public function isExclusive(): bool
    {
        return $this->holdersMax === 1;
    }

    /** Whether it is neither exclusive nor shared: only newer servers know such a mode. */
    public function isLimited(): bool
    {
        return $this->holdersMax !== null && $this->holdersMax > 1;
    }

    /** Whether it allows at least as many holders as the other mode. */
    public function allowsAsManyAs(self $other): bool
    {
        return ($this->holdersMax ?? INF) >= ($other->holdersMax ?? INF);
    }
}
