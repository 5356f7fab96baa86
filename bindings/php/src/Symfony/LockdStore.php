<?php

declare(strict_types=1);

namespace Lockd\Symfony;

use Lockd\Client;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\InvalidArgumentException as InvalidArgument;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Internal\ClientSource;
use Lockd\Internal\Deadline;
use Lockd\Internal\Signals;
use Lockd\Lock;
use Lockd\SessionState;
use Symfony\Component\Lock\BlockingSharedLockStoreInterface;
use Symfony\Component\Lock\BlockingStoreInterface;
use Symfony\Component\Lock\Exception\ExceptionInterface;
use Symfony\Component\Lock\Exception\InvalidArgumentException;
use Symfony\Component\Lock\Exception\LockAcquiringException;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\Exception\LockReleasingException;
use Symfony\Component\Lock\Exception\LockStorageException;
use Symfony\Component\Lock\Key;
use WeakMap;

/**
 * Locks on a lockd, as a store for Symfony's Lock component, 5.4 and later.
 *
 *     $factory = new LockFactory(new LockdStore('lockd://127.0.0.1'));
 *
 * A lock has no time to live: it is held until it is released, or until its process or its
 * connection ends. After that `exists()` returns false, and so does `Lock::isAcquired()`, which
 * asks the server. With the option `resume` it may outlive its connection; while it is in doubt, both
 * return false, and all else throws. A time to live that is given to a lock is ignored: refreshing the lock fails if
 * it is not held any more, and otherwise does nothing.
 *
 * To the server, all keys of a store are one owner. Keys of one resource share the lock if they are
 * saved for reading. Otherwise they conflict at once, even if the second key asks to wait: it would
 * wait for its own process.
 */
final class LockdStore implements BlockingSharedLockStoreInterface, BlockingStoreInterface
{
    private readonly ClientSource $source;
    /**
     * The name under which a key keeps a reference to this store: the store lives as long as its
     * keys, and no other store is taken for it.
     */
    private readonly string $state;
    /**
     * @var WeakMap<Key, Lock> the lock that each key holds or has held; keys that share a lock
     *     refer to the same object
     */
    private WeakMap $locks;
    /** How long a blocking acquire waits, in seconds; null: without limit. */
    private ?float $wait = null;
    /** The store that this one was made from: it must live as long, so that it is found again. */
    private ?self $original = null;

    /**
     * @param Client|string $client a client; or `lockd://HOST[:PORT][,HOST[:PORT]…]`,
     *     `lockd+tls://…` (through liblockd, by {@see Client::connectByFfi()}) or
     *     `lockd+unix:///PATH`, to which the store connects when it is first needed, and again when
     *     that connection is lost. The protocol is `message` (port 20934), not the server's text
     *     protocol `lockd`. After a `?` may follow, separated by `&` and percent-encoded: `wait=S`
     *     as for {@see withWait()}, `owner=NAME`, `timeout=S` and `resume` as for
     *     {@see Client::connect()}, `auth-token-file=FILE`, and with TLS `ca=FILE`, `cert=FILE` and `key=FILE`
     * @throws InvalidArgumentException
     */
    public function __construct(Client|string $client)
    {
        try {
            $dsn = $client instanceof Client ? null : Dsn::parse($client);
            $this->source = $dsn?->source() ?? new ClientSource($client);
        } catch (InvalidArgument $e) {
            throw new InvalidArgumentException($e->getMessage(), 0, $e);
        }
        $this->wait = $dsn?->wait;
        $this->locks = new WeakMap();
        $this->state = self::class . '#' . spl_object_id($this->locks);
    }

    /**
     * A store that differs only in how long it waits. Both are one owner, have the same locks, and
     * may use the same keys.
     *
     * @param ?float $seconds how long a blocking acquire waits; then it throws a
     *     {@see LockConflictedException}. Null: without limit
     * @throws InvalidArgumentException for a number below zero, or NAN
     */
    public function withWait(?float $seconds): self
    {
        if ($seconds !== null && !($seconds >= 0.0)) {
            throw new InvalidArgumentException('a wait is a number of seconds from 0 up, or null for no limit');
        }
        $store = clone $this;
        $store->wait = $seconds;
        $store->original = $this->original ?? $this;
        return $store;
    }

    public function save(Key $key): void
    {
        $this->hold($key, false, 0.0);
    }

    public function saveRead(Key $key): void
    {
        $this->hold($key, true, 0.0);
    }

    /**
     * Waits in the server's queue, for as long as the option `wait` says, or without limit. A key
     * that is saved for reading keeps its shared lock while it waits.
     *
     * @throws LockConflictedException not granted within that time, or another key of this process
     *     holds the lock
     */
    public function waitAndSave(Key $key): void
    {
        $this->hold($key, false, $this->wait);
    }

    /**
     * Waits in the server's queue, as {@see waitAndSave()} does.
     *
     * @throws LockConflictedException
     */
    public function waitAndSaveRead(Key $key): void
    {
        $this->hold($key, true, $this->wait);
    }

    public function delete(Key $key): void
    {
        $lock = $this->locks[$key] ?? null;
        if ($lock === null) {
            return;
        }
        unset($this->locks[$key]);
        $key->removeState($this->state);
        if ($this->keysOf($lock) > 0) {
            return;
        }
        try {
            $lock->release();
        } catch (LockdException $e) {
            $how = $e instanceof DoubtException ? 'was in doubt' : 'was already lost';
            throw new LockReleasingException("\"$key\" $how when it was to be released: {$e->getMessage()}", 0, $e);
        }
    }

    /** Whether this key holds the lock: asks the server. False in doubt. */
    public function exists(Key $key): bool
    {
        return ($this->locks[$key] ?? null)?->isHeld() === true;
    }

    public function putOffExpiration(Key $key, float $ttl): void
    {
        if (!$this->exists($key)) {
            throw ($this->locks[$key] ?? null)?->state() === SessionState::InDoubt
                ? new LockStorageException("it is in doubt whether \"$key\" is held")
                : new LockConflictedException("\"$key\" is not held any more");
        }
    }

    private function hold(Key $key, bool $shared, ?float $timeout): void
    {
        try {
            if ($this->exists($key)) {
                $this->convert($this->locks[$key], $shared, $timeout);
                return;
            }
            // If a signal handler threw after the grant but before the lock is stored, the lock
            // would stay held for ever.
            Signals::deferred(function () use ($key, $shared, $timeout): void {
                $this->locks[$key] = $this->acquire((string) $key, $shared, $timeout);
                $key->setState($this->state, $this);
                $key->markUnserializable();
            });
        } catch (LockdException $e) {
            throw self::failure($key, $e);
        }
    }

    private function acquire(string $name, bool $shared, ?float $timeout): Lock
    {
        try {
            return $this->source->client()->acquire($name, $timeout, $shared)
                ?? throw new LockConflictedException("\"$name\" is held by others" . self::after($timeout));
        } catch (AlreadyHeldException $e) {
            return ($shared ? $this->sharedBefore($name) : null)
                ?? throw new LockConflictedException("another key of this process holds \"$name\"", 0, $e);
        }
    }

    private function sharedBefore(string $name): ?Lock
    {
        foreach ($this->locks as $lock) {
            if ($lock->name() === $name && $lock->isShared() && $lock->isHeld()) {
                return $lock;
            }
        }
        return null;
    }

    private function convert(Lock $lock, bool $shared, ?float $timeout): void
    {
        if ($lock->isShared() === $shared) {
            return;
        }
        if ($this->keysOf($lock) > 1) {
            throw new LockConflictedException("other keys of this process share \"{$lock->name()}\"");
        }
        if (!$lock->convert($shared, $timeout)) {
            throw new LockConflictedException("others share \"{$lock->name()}\"" . self::after($timeout));
        }
    }

    private static function after(?float $timeout): string
    {
        return $timeout === 0.0 ? '' : ', after a wait of ' . Deadline::text($timeout ?? INF) . ' s';
    }

    /** The number of keys that hold this lock. */
    private function keysOf(Lock $lock): int
    {
        $keys = 0;
        foreach ($this->locks as $held) {
            $keys += $held === $lock ? 1 : 0;
        }
        return $keys;
    }

    private static function failure(Key $key, LockdException $e): ExceptionInterface
    {
        $text = "\"$key\" could not be acquired: {$e->getMessage()}";
        return match (true) {
            $e instanceof DeadlockException, $e instanceof RefusedException => new LockAcquiringException($text, 0, $e),
            $e instanceof InvalidArgument => new InvalidArgumentException($text, 0, $e),
            default => new LockStorageException($text, 0, $e),
        };
    }
}
