<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Closure;
use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Internal\ClientSource;
use Lockd\Lock;
use Lockd\Message\Address;

/**
 * Locks that have a connection each, for Laravel's mutexes: programs that are started while one is
 * held inherit that connection, and no other lock; with TLS they inherit none. Knows the server and
 * the application's prefix, and does not keep the locks.
 *
 * Their sessions do not resume, whatever the address says: the programs would not have the new
 * connection, and where there are none, nobody looks after the session while the work goes on.
 *
 * @internal
 */
final class SeparateLocks
{
    private readonly ClientSource $source;
    private readonly Reachability $reachability;
    /** Whether liblockd connects, because the address asks for TLS. */
    public readonly bool $isTls;

    /**
     * @param string $url as for {@see Client::connect()}; `?resume` is for {@see Holder} only
     * @param float $timeout in seconds, for connecting and for every answer
     * @throws InvalidArgumentException
     */
    public function __construct(
        public readonly string $url,
        public readonly ?string $owner,
        public readonly float $timeout,
        private readonly string $prefix,
    ) {
        $this->source = new ClientSource(Address::withResume($url, false), $owner, $timeout);
        $this->reachability = new Reachability($url, $timeout);
        $this->isTls = array_filter(Address::parseList($url), static fn (Address $one): bool => $one->isTls) !== [];
    }

    /** What the lock of that name is called on the server. */
    public function nameOf(string $name): string
    {
        // Laravel's own names have backslashes on Windows.
        return $this->prefix . strtr($name, '\\', '/');
    }

    /**
     * Acquires the lock if it is free.
     *
     * @return ?Lock null: it is held, by this process or another
     * @throws LockdException
     */
    public function tryToAcquire(string $name): ?Lock
    {
        $name = $this->nameOf($name);
        $acquire = $this->isTls ? Client::connectAndAcquireByFfi(...) : Client::connectAndAcquire(...);
        return $this->attempt($name, fn (): ?Lock => $acquire(
            $this->url,
            $name,
            timeout: 0.0,
            owner: $this->owner,
            connectTimeout: $this->timeout,
            resume: false,
        ));
    }

    /**
     * Whether any process holds the lock now.
     *
     * @throws LockdException
     */
    public function isHeld(string $name): bool
    {
        $name = $this->nameOf($name);
        return $this->attempt($name, fn (): bool => $this->source->client()->inspect($name)->isHeld());
    }

    /**
     * Calls `$ask`, which asks the server for the lock, unless the server has not answered a short
     * while ago: {@see Reachability::attempt()}.
     *
     * @template T
     * @param string $name of the lock on the server
     * @param Closure(): T $ask
     * @return T
     * @throws LockdException
     */
    public function attempt(string $name, Closure $ask): mixed
    {
        return $this->reachability->attempt($name, $ask);
    }
}
