<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use BadMethodCallException;
use Illuminate\Contracts\Cache\LockProvider;
use Illuminate\Contracts\Cache\Store;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\NotHeldException;

/**
 * A cache store whose locks are those of lockd, for the driver `lockd`. The values are kept by
 * another store, to which everything but locks is passed on. What is different with these locks is
 * said at {@see LockdLockProvider}.
 */
class LockdStore implements Store, LockProvider
{
    /**
     * @param Store $values keeps the values
     */
    public function __construct(private readonly Store $values, private readonly LockdLockProvider $locks)
    {
    }

    /**
     * A lock object; the lock is not acquired yet.
     *
     * @param string $name
     * @param int $seconds ignored: the lock does not expire
     * @param ?string $owner
     * @throws InvalidArgumentException as for {@see LockdLockProvider::lock()}
     */
    public function lock($name, $seconds = 0, $owner = null): LockdLock
    {
        return $this->locks->lock($name, $seconds, $owner);
    }

    /**
     * The lock that this process holds for that owner.
     *
     * @param string $name
     * @param string $owner
     * @throws NotHeldException this process does not hold it for that owner
     */
    public function restoreLock($name, $owner): LockdLock
    {
        return $this->locks->restoreLock($name, $owner);
    }

    /**
     * Refused: a lock has a holder that is at work, and can be freed by that holder alone.
     *
     * @throws BadMethodCallException
     */
    public function flushLocks(): bool
    {
        throw new BadMethodCallException('the locks of lockd cannot be flushed: each has a holder that is still there');
    }

    /**
     * Stores the value if there is none yet.
     *
     * @param string $key
     * @param mixed $value
     * @param int $seconds
     */
    public function add($key, $value, $seconds): bool
    {
        // Laravel's own way for a store without `add`: not atomic.
        return method_exists($this->values, 'add')
            ? (bool) $this->values->add($key, $value, $seconds)
            : $this->values->get($key) === null && (bool) $this->values->put($key, $value, $seconds);
    }

    public function get($key): mixed
    {
        return $this->values->get($key);
    }

    /**
     * @param array<mixed> $keys
     * @return array<mixed>
     */
    public function many(array $keys): array
    {
        return $this->values->many($keys);
    }

    public function put($key, $value, $seconds): bool
    {
        return (bool) $this->values->put($key, $value, $seconds);
    }

    /** @param array<mixed> $values */
    public function putMany(array $values, $seconds): bool
    {
        return (bool) $this->values->putMany($values, $seconds);
    }

    public function increment($key, $value = 1): mixed
    {
        return $this->values->increment($key, $value);
    }

    public function decrement($key, $value = 1): mixed
    {
        return $this->values->decrement($key, $value);
    }

    public function forever($key, $value): bool
    {
        return (bool) $this->values->forever($key, $value);
    }

    /** Part of Laravel's contract since Laravel 13. */
    public function touch($key, $seconds): bool
    {
        return (bool) $this->__call('touch', [$key, $seconds]);
    }

    public function forget($key): bool
    {
        return (bool) $this->values->forget($key);
    }

    public function flush(): bool
    {
        return (bool) $this->values->flush();
    }

    public function getPrefix(): string
    {
        return $this->values->getPrefix();
    }

    /**
     * What else the store of the values can do.
     *
     * @param array<mixed> $arguments
     */
    public function __call(string $method, array $arguments): mixed
    {
        return method_exists($this->values, $method) || method_exists($this->values, '__call')
            ? $this->values->$method(...$arguments)
            : throw new BadMethodCallException($this->values::class . " has no method $method()");
    }
}
