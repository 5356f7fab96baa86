<?php

declare(strict_types=1);

namespace Lockd\Symfony;

use Lockd\Client;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\InvalidArgumentException as InvalidArgument;
use Lockd\Exception\LockdException;
use Lockd\Internal\ClientSource;
use Lockd\Internal\Signals;
use Lockd\Internal\Slots;
use Lockd\Lock;
use Lockd\SessionState;
use Symfony\Component\Semaphore\Exception\ExceptionInterface;
use Symfony\Component\Semaphore\Exception\InvalidArgumentException;
use Symfony\Component\Semaphore\Exception\RuntimeException;
use Symfony\Component\Semaphore\Exception\SemaphoreAcquiringException;
use Symfony\Component\Semaphore\Exception\SemaphoreExpiredException;
use Symfony\Component\Semaphore\Exception\SemaphoreReleasingException;
use Symfony\Component\Semaphore\Key;
use Symfony\Component\Semaphore\PersistingStoreInterface;
use WeakMap;

/**
 * Semaphores on a lockd, as a store for Symfony's Semaphore component, 5.4 and later. A key is a
 * lock with the key's limit.
 *
 *     $factory = new SemaphoreFactory(new LockdSemaphoreStore('lockd://127.0.0.1'));
 *
 * A slot has no time to live: it is held until it is released, or until its process or its
 * connection ends. After that `exists()` returns false, and so does `Semaphore::isAcquired()`, which
 * asks the server. With the option `resume` it may outlive its connection; while it is in doubt, both
 * return false, and all else throws. A time to live that is given is ignored, except by `Semaphore::isExpired()` and
 * `getRemainingLifetime()`, which look only at the clock: refreshing the semaphore fails if it is
 * not held any more, and otherwise does nothing.
 *
 * Each key has a slot of its own, and each slot of one resource in one process a connection of its
 * own, unless the store was given a client: then a second key of a resource gets no slot.
 */
final class LockdSemaphoreStore implements PersistingStoreInterface
{
    private readonly Slots $slots;
    /**
     * The name under which a key keeps a reference to this store: the store lives as long as its
     * keys, and no other store is taken for it.
     */
    private readonly string $state;
    /** @var WeakMap<Key, Lock> the slot that each key holds or has held */
    private WeakMap $locks;

    /**
     * @param Client|string $client as for {@see LockdStore}, without `wait`
     * @throws InvalidArgumentException
     */
    public function __construct(Client|string $client)
    {
        try {
            $dsn = $client instanceof Client ? null : Dsn::parse($client);
            $this->slots = new Slots($dsn?->source() ?? new ClientSource($client));
        } catch (InvalidArgument $e) {
            throw new InvalidArgumentException($e->getMessage(), 0, $e);
        }
        if (is_string($client) && $dsn?->wait !== null) {
            throw new InvalidArgumentException("a semaphore does not wait: \"wait\" is for locks only: \"$client\"");
        }
        $this->state = self::class . '#' . spl_object_id($this);
        $this->locks = new WeakMap();
    }

    /** Takes a slot if one is free; does not wait. A key that has a slot keeps it. */
    public function save(Key $key, float $ttlInSecond): void
    {
        if ($key->getWeight() !== 1) {
            throw new InvalidArgumentException(
                "\"$key\" has the weight {$key->getWeight()}: on a lockd each key has one slot, so its weight must be 1"
            );
        }
        try {
            if ($this->exists($key)) {
                return;
            }
            // If a signal handler threw after the grant but before the lock is stored, the lock
            // would stay held for ever.
            Signals::deferred(function () use ($key): void {
                $this->locks[$key] = $this->slots->acquire((string) $key, $key->getLimit(), 0.0)
                    ?? throw new SemaphoreAcquiringException($key, 'no slot is free');
                $key->setState($this->state, $this);
                if (method_exists($key, 'markUnserializable')) {
                    $key->markUnserializable();
                }
            });
        } catch (AlreadyHeldException $e) {
            throw new SemaphoreAcquiringException($key, $e->getMessage());
        } catch (LockdException $e) {
            throw self::failure($key, $e);
        }
    }

    public function delete(Key $key): void
    {
        $lock = $this->locks[$key] ?? null;
        if ($lock === null) {
            return;
        }
        unset($this->locks[$key]);
        $key->removeState($this->state);
        try {
            $lock->release();
        } catch (LockdException $e) {
            $how = $e instanceof DoubtException ? 'in doubt' : 'already lost';
            throw new SemaphoreReleasingException($key, "its slot was $how: {$e->getMessage()}");
        }
    }

    /** Whether this key has a slot: asks the server. False in doubt. */
    public function exists(Key $key): bool
    {
        return ($this->locks[$key] ?? null)?->isHeld() === true;
    }

    public function putOffExpiration(Key $key, float $ttlInSecond): void
    {
        if (!$this->exists($key)) {
            throw ($this->locks[$key] ?? null)?->state() === SessionState::InDoubt
                ? new RuntimeException("it is in doubt whether \"$key\" has its slot")
                : new SemaphoreExpiredException($key, 'its slot is not held any more');
        }
    }

    /**
     * A key that has a slot refers to its store.
     *
     * @return array<mixed>
     */
    public function __serialize(): array
    {
        throw new RuntimeException('a key that has a slot belongs to its process: it cannot be serialized');
    }

    private static function failure(Key $key, LockdException $e): ExceptionInterface
    {
        $text = "\"$key\" could not be acquired: {$e->getMessage()}";
        return $e instanceof InvalidArgument
            ? new InvalidArgumentException($text, 0, $e)
            : new RuntimeException($text, 0, $e);
    }
}
