<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\LockdException;
use Lockd\Exception\NotHeldException;
use Lockd\Internal\ClientSource;
use Lockd\Internal\Signals;
use Lockd\Lock;

/**
 * The locks that a provider holds, and for which owner. They are stored here and not in the lock
 * objects: in Laravel a lock object is often destroyed right after it has acquired the lock, and
 * the lock must stay held.
 *
 * @internal
 */
final class HeldLocks
{
    /** @var array<array-key, array{string, Lock}> the owner and the lock, by name */
    private array $held = [];

    public function __construct(
        private readonly ClientSource $source,
        private readonly Reachability $reachability,
    ) {
    }

    /**
     * Connects if there is no connection.
     *
     * @throws LockdException
     */
    public function reach(string $name): void
    {
        $this->reachability->attempt($name, $this->source->client(...));
    }

    /**
     * @return ?Lock null: not granted within the time limit
     * @throws AlreadyHeldException this provider holds the lock already, for this owner or another
     * @throws LockdException
     */
    public function acquire(string $name, string $owner, float $timeout): ?Lock
    {
        // If a signal handler threw after the grant but before the lock is stored, the lock would
        // stay held for ever.
        return Signals::deferred(function () use ($name, $owner, $timeout): ?Lock {
            $acquire = fn (): ?Lock => $this->source->client()->acquire($name, $timeout);
            if ($timeout > 0.0) {
                // How long it waits for its turn says nothing of the server.
                $this->reach($name);
                $lock = $acquire();
            } else {
                $lock = $this->reachability->attempt($name, $acquire);
            }
            if ($lock !== null) {
                $this->held[$name] = [$owner, $lock];
            }
            return $lock;
        });
    }

    /**
     * @return bool false: this owner does not hold it
     * @throws LockdException the lock was lost, perhaps long ago
     */
    public function release(string $name, string $owner): bool
    {
        [$holder, $lock] = $this->held[$name] ?? [null, null];
        if ($lock === null || $holder !== $owner) {
            return false;
        }
        unset($this->held[$name]);
        return $lock->release();
    }

    /** @throws NotHeldException another process holds it */
    public function forceRelease(string $name): void
    {
        $owner = $this->held[$name][0] ?? null;
        if ($owner !== null && $this->holds($name, $owner)) {
            $this->release($name, $owner);
        } elseif ($this->isHeldByAnyone($name)) {
            throw new NotHeldException("another process holds \"$name\", and only that process can release it");
        }
    }

    /**
     * Whether any process holds the lock now.
     *
     * @throws LockdException
     */
    public function isHeldByAnyone(string $name): bool
    {
        return $this->reachability->attempt($name, fn (): bool => $this->source->client()->inspect($name)->isHeld());
    }

    /** Whether this owner holds the lock now: asks the server. */
    public function holds(string $name, string $owner): bool
    {
        [$holder, $lock] = $this->held[$name] ?? [null, null];
        return $holder === $owner && $lock?->isHeld() === true;
    }
}
