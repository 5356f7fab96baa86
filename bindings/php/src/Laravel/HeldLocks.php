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
 * What a provider's locks hold, and for whom. Kept here and not in the lock objects: with Laravel a lock object is
 * often gone as soon as it has been acquired, and the lock has to be held on.
 *
 * @internal
 */
final class HeldLocks
{
    /** @var array<array-key, array{string, Lock}> the owner and the lock, by name */
    private array $held = [];

    public function __construct(private readonly ClientSource $source)
    {
    }

    /**
     * @throws AlreadyHeldException this provider holds it, for whatever owner
     * @throws LockdException
     */
    public function acquire(string $name, string $owner, float $timeout): bool
    {
        // A handler that threw when the lock is got, but not kept yet, would leave it held for ever.
        return Signals::deferred(function () use ($name, $owner, $timeout): bool {
            $lock = $this->source->client()->acquire($name, $timeout);
            if ($lock !== null) {
                $this->held[$name] = [$owner, $lock];
            }
            return $lock !== null;
        });
    }

    /**
     * @return bool false: it is not held for this owner
     * @throws LockdException it was lost, perhaps long ago
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

    /** @throws NotHeldException somebody else holds it */
    public function forceRelease(string $name): void
    {
        $owner = $this->held[$name][0] ?? null;
        if ($owner !== null && $this->holds($name, $owner)) {
            $this->release($name, $owner);
        } elseif ($this->source->client()->inspect($name)->holders > 0) {
            throw new NotHeldException("another process holds \"$name\", and only that can release it");
        }
    }

    /** Whether it is held for this owner now: asks the server. */
    public function holds(string $name, string $owner): bool
    {
        [$holder, $lock] = $this->held[$name] ?? [null, null];
        return $holder === $owner && $lock?->isHeld() === true;
    }
}
