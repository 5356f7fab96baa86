<?php

declare(strict_types=1);

namespace Lockd\Symfony;

use Lockd\Exception\InvalidArgumentException as InvalidArgument;
use Symfony\Component\Lock\Exception\InvalidArgumentException;
use Symfony\Component\Lock\PersistingStoreInterface as LockStore;
use Symfony\Component\Lock\Store\StoreFactory as SymfonysLockStores;
use Symfony\Component\Semaphore\PersistingStoreInterface as SemaphoreStore;
use Symfony\Component\Semaphore\Store\StoreFactory as SymfonysSemaphoreStores;
use WeakReference;

/**
 * Makes the stores of a Symfony application: ours for a DSN of ours, and Symfony's own for all
 * others. {@see \Lockd\LockdBundle} puts it in the place of Symfony's factories. It decides when a store is
 * made, because only then are the environment variables known.
 */
final class StoreFactory
{
    /** @var array<string, WeakReference<LockdStore>> the first store of each client */
    private static array $stores = [];

    /**
     * A store for locks. Those of the same servers are one owner, so that two factories of an
     * application do not wait for each other in one process.
     *
     * @param mixed $connection a DSN, or what else Symfony's factory accepts
     * @param mixed ...$more further arguments of Symfony's factory, in its later versions
     * @throws InvalidArgumentException
     */
    public static function createLockStore(mixed $connection, mixed ...$more): LockStore
    {
        if (!Dsn::isMeantBy($connection)) {
            return SymfonysLockStores::createStore($connection, ...$more);
        }
        try {
            $dsn = Dsn::parse((string) $connection);
        } catch (InvalidArgument $e) {
            throw new InvalidArgumentException($e->getMessage(), 0, $e);
        }
        $first = (self::$stores[$dsn->client()] ?? null)?->get();
        if ($first !== null) {
            return $first->withWait($dsn->wait);
        }
        $store = new LockdStore((string) $connection);
        self::$stores[$dsn->client()] = WeakReference::create($store);
        return $store;
    }

    /**
     * A store for semaphores.
     *
     * @param mixed $connection a DSN, or what else Symfony's factory accepts
     * @param mixed ...$more further arguments of Symfony's factory, in its later versions
     * @throws \Symfony\Component\Semaphore\Exception\InvalidArgumentException
     */
    public static function createSemaphoreStore(mixed $connection, mixed ...$more): SemaphoreStore
    {
        return Dsn::isMeantBy($connection)
            ? new LockdSemaphoreStore((string) $connection)
            : SymfonysSemaphoreStores::createStore($connection, ...$more);
    }
}
