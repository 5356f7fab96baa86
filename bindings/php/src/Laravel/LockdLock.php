<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Illuminate\Contracts\Cache\Lock;
use Illuminate\Contracts\Cache\LockTimeoutException;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\NotHeldException;
use Lockd\Internal\Body;
use Lockd\Internal\LockedCall;
use Lockd\Lock as Acquired;

/**
 * A lock with Laravel's interface. Made by {@see LockdLockProvider}, which describes the
 * differences from Laravel's own locks.
 *
 * If the lock is busy, the return value says so, as in Laravel. If the server is gone, a
 * {@see LockdException} is thrown.
 */
final class LockdLock implements Lock
{
    /** @internal */
    public function __construct(
        private readonly HeldLocks $held,
        private readonly string $name,
        private readonly string $owner,
    ) {
    }

    /**
     * Acquires the lock if it is free. With a callback: calls it while holding the lock, then
     * releases the lock.
     *
     * @template T
     * @param (callable(mixed...): T)|null $callback must be finished when it returns, as for
     *     {@see \Lockd\Client::synchronized()}
     * @return ($callback is null ? bool : T|false) what the callback returns, or true; false: the
     *     lock is held, by this process or another
     * @throws InvalidArgumentException the callback is a generator function, or its result is not
     *     finished when it returns
     * @throws ConnectionLostException also if the lock was lost while the callback was at work
     * @throws LockdException
     */
    public function get($callback = null): mixed
    {
        return is_callable($callback)
            ? $this->run($this->tryToAcquire(...), $callback, static fn (): bool => false)
            : $this->acquire();
    }

    /**
     * Acquires the lock, waiting its turn in the server's queue.
     *
     * @template T
     * @param int|float $seconds how long to wait
     * @param (callable(mixed...): T)|null $callback as for {@see get()}
     * @return ($callback is null ? true : T) what the callback returns, or true
     * @throws LockTimeoutException the lock was not granted in that time, or this process holds it
     *     already and would wait for itself
     * @throws InvalidArgumentException the callback is a generator function, or its result is not
     *     finished when it returns
     * @throws ConnectionLostException also if the lock was lost while the callback was at work
     * @throws LockdException
     */
    public function block($seconds, $callback = null): mixed
    {
        $acquire = fn (): Acquired => $this->acquireWithin((float) $seconds);
        if (is_callable($callback)) {
            // It throws if the lock is not granted.
            return $this->run($acquire, $callback, static fn () => null);
        }
        $acquire();
        return true;
    }

    /** @throws LockTimeoutException */
    private function acquireWithin(float $seconds): Acquired
    {
        try {
            return $this->held->acquire($this->name, $this->owner, $seconds)
                ?? throw new LockTimeoutException("\"$this->name\" was not granted within $seconds s");
        } catch (AlreadyHeldException $e) {
            throw new LockTimeoutException("this process already holds \"$this->name\"", 0, $e);
        }
    }

    /** Acquires the lock if it is free; false: it is held, by this process or another. */
    public function acquire(): bool
    {
        return $this->tryToAcquire() !== null;
    }

    private function tryToAcquire(): ?Acquired
    {
        try {
            return $this->held->acquire($this->name, $this->owner, 0.0);
        } catch (AlreadyHeldException) {
            return null;
        }
    }

    /** @return bool false: this owner does not hold it, or does not hold it any more */
    public function release(): bool
    {
        try {
            return $this->held->release($this->name, $this->owner);
        } catch (LockdException) {
            return false;
        }
    }

    /**
     * Releases the lock, for whichever owner this process holds it.
     *
     * @throws NotHeldException another process holds it, and only that process can release it
     */
    public function forceRelease(): void
    {
        $this->held->forceRelease($this->name);
    }

    public function owner(): string
    {
        return $this->owner;
    }

    /** Whether this owner holds the lock now: asks the server. */
    public function isOwnedByCurrentProcess(): bool
    {
        return $this->held->holds($this->name, $this->owner);
    }

    /** The same under Laravel's other name. */
    public function isOwner(): bool
    {
        return $this->isOwnedByCurrentProcess();
    }

    /**
     * Whether this process holds the lock for that owner now: asks the server, which does not know
     * the owners of other processes. So it is false for those.
     *
     * @param ?string $owner
     */
    public function isOwnedBy($owner): bool
    {
        return $owner !== null && $this->held->holds($this->name, (string) $owner);
    }

    /**
     * Whether any process holds the lock now.
     *
     * @throws LockdException
     */
    public function isLocked(): bool
    {
        return $this->held->isHeldByAnyone($this->name);
    }

    /**
     * There is nothing to extend, because the lock does not expire. So this only tells whether this
     * owner still holds it.
     *
     * @param ?int $seconds ignored
     */
    public function refresh($seconds = null): bool
    {
        return $this->isOwnedByCurrentProcess();
    }

    /**
     * Ignored: a waiting process has a place in the server's queue, and does not poll.
     *
     * @param int $milliseconds
     */
    public function betweenBlockedAttemptsSleepFor($milliseconds): static
    {
        return $this;
    }

    /**
     * @template T
     * @template U
     * @param callable(): ?Acquired $acquire
     * @param callable(mixed...): T $callback
     * @param callable(): U $otherwise is called if the lock was not granted
     * @return T|U
     */
    private function run(callable $acquire, callable $callback, callable $otherwise): mixed
    {
        Body::mustRunWhenCalled($callback);
        $release = fn (): bool => $this->held->release($this->name, $this->owner);
        return LockedCall::run($acquire, static fn (): mixed => $callback(), $otherwise, $release);
    }
}
