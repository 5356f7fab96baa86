<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Internal\ClientSource;
use Lockd\Lock;

/**
 * Locks that have a connection each, for Laravel's mutexes: programs that are started while one is
 * held inherit that connection, and no other lock. Knows the server and the application's prefix,
 * and does not keep the locks.
 *
 * @internal
 */
final class SeparateLocks
{
    private readonly ClientSource $source;

    /**
     * @param string $url as for {@see Client::connect()}
     * @param float $timeout in seconds, for connecting and for every answer
     * @throws InvalidArgumentException
     */
    public function __construct(
        public readonly string $url,
        public readonly ?string $owner,
        public readonly float $timeout,
        private readonly string $prefix,
    ) {
        $this->source = new ClientSource($url, $owner, $timeout);
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
        return Client::connectAndAcquire(
            $this->url,
            $this->nameOf($name),
            timeout: 0.0,
            owner: $this->owner,
            connectTimeout: $this->timeout,
        );
    }

    /**
     * Whether any process holds the lock now.
     *
     * @throws LockdException
     */
    public function isHeld(string $name): bool
    {
        return $this->source->client()->inspect($this->nameOf($name))->isHeld();
    }
}
