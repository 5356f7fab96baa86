<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Illuminate\Contracts\Cache\LockProvider;
use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\NotHeldException;
use Lockd\Internal\ClientSource;

/**
 * Locks of a lockd by Laravel's contract.
 *
 *     $locks = new LockdLockProvider('tcp://127.0.0.1:20934');
 *     $locks->lock('nightly-report')->block(10, function () {
 *         // Nobody else is at it.
 *     });
 *
 * What is different from the locks of Laravel's caches: **a lock does not expire, and belongs to the process that has
 * acquired it.** It is held until it is released, or until that process, its connection or this provider ends; not
 * even until its lock object goes. So the seconds it is to live are ignored, and it cannot be handed over to another
 * process, such as a queued job: that could neither restore it nor release it. Locks that one process acquires and
 * another one releases (as for `ShouldBeUnique`) have to stay in a cache.
 */
final class LockdLockProvider implements LockProvider
{
    private readonly HeldLocks $held;

    /**
     * @param Client|string $client a client; or an address for {@see Client::connect()}, which connects when it is
     *     first needed, and again when that connection is gone
     * @param ?string $name what the client is called in listings
     * @param float $timeout for connecting, and for every answer that the server gives at once; in seconds
     * @throws InvalidArgumentException for an address that makes no sense
     */
    public function __construct(Client|string $client, ?string $name = null, float $timeout = 5.0)
    {
        $this->held = new HeldLocks(new ClientSource($client, $name, $timeout));
    }

    /**
     * A lock that can be acquired.
     *
     * @param string $name
     * @param int $seconds ignored: it does not expire
     * @param ?string $owner who holds it within this process; null: a name of its own
     */
    public function lock($name, $seconds = 0, $owner = null): LockdLock
    {
        return new LockdLock($this->held, (string) $name, (string) ($owner ?? bin2hex(random_bytes(8))));
    }

    /**
     * A lock that this process holds by that owner, to release it.
     *
     * @param string $name
     * @param string $owner
     * @throws NotHeldException it does not: locks cannot be taken over from another process
     */
    public function restoreLock($name, $owner): LockdLock
    {
        $lock = $this->lock($name, 0, $owner);
        if (!$lock->isOwnedByCurrentProcess()) {
            throw new NotHeldException(
                "\"$name\" cannot be restored: this process does not hold it by that owner, and another one's lock "
                . 'cannot be taken over'
            );
        }
        return $lock;
    }
}
