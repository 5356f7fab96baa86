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
use Throwable;

/**
 * A lock as Laravel's code wants it. Made by {@see LockdLockProvider}, which says what is different.
 *
 * That the lock is busy is a return value, as Laravel has it; that the server is gone is a {@see LockdException}.
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
     * Acquires the lock if it is free. With a callback: calls it while holding the lock, and releases that.
     *
     * @param ?callable $callback must be done when it returns, as for {@see \Lockd\Client::synchronized()}
     * @return mixed what the callback returns, or true; false: the lock is held already, by whomever
     * @throws InvalidArgumentException the callback does not run, or not to its end, while it is called
     * @throws ConnectionLostException also if the lock was lost while the callback was at work
     * @throws LockdException
     */
    public function get($callback = null): mixed
    {
        self::mustRunWhenCalled($callback);
        if (!$this->acquire()) {
            return false;
        }
        return is_callable($callback) ? $this->run($callback) : true;
    }

    /**
     * Waits its turn in the server's queue.
     *
     * @param int|float $seconds how long
     * @param ?callable $callback as for {@see get()}
     * @return mixed what the callback returns, or true
     * @throws LockTimeoutException not within that time, or this process holds it, which would wait for itself
     * @throws InvalidArgumentException the callback does not run, or not to its end, while it is called
     * @throws ConnectionLostException also if the lock was lost while the callback was at work
     * @throws LockdException
     */
    public function block($seconds, $callback = null): mixed
    {
        self::mustRunWhenCalled($callback);
        try {
            $acquired = $this->held->acquire($this->name, $this->owner, (float) $seconds);
        } catch (AlreadyHeldException $e) {
            throw new LockTimeoutException("this process holds \"$this->name\" itself", 0, $e);
        }
        if (!$acquired) {
            throw new LockTimeoutException("\"$this->name\" was not to be had within $seconds s");
        }
        return is_callable($callback) ? $this->run($callback) : true;
    }

    /** Acquires the lock if it is free; false: it is held already, by whomever. */
    public function acquire(): bool
    {
        try {
            return $this->held->acquire($this->name, $this->owner, 0.0);
        } catch (AlreadyHeldException) {
            return false;
        }
    }

    /** @return bool false: this owner does not hold it, perhaps not any more */
    public function release(): bool
    {
        try {
            return $this->held->release($this->name, $this->owner);
        } catch (LockdException) {
            return false;
        }
    }

    /**
     * Releases the lock for whichever owner this process holds it.
     *
     * @throws NotHeldException another process holds it, and only that can release it
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

    /** The same, by its other name in Laravel. */
    public function isOwner(): bool
    {
        return $this->isOwnedByCurrentProcess();
    }

    private static function mustRunWhenCalled(mixed $callback): void
    {
        if (is_callable($callback)) {
            Body::mustRunWhenCalled($callback);
        }
    }

    private function run(callable $callback): mixed
    {
        try {
            $result = $callback();
        } catch (Throwable $e) {
            $this->release();
            throw $e;
        }
        $this->held->release($this->name, $this->owner);
        Body::mustBeDone($result);
        return $result;
    }
}
