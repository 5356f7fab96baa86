<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Illuminate\Contracts\Cache\LockProvider;
use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\NotHeldException;
use Lockd\Internal\ClientSource;
use Lockd\Internal\Slots;

/**
 * Locks on a lockd, with the interface that Laravel defines for lock providers.
 *
 *     $locks = new LockdLockProvider('tcp://127.0.0.1:20934');
 *     $locks->lock('nightly-report')->block(10, function () {
 *         // No other process holds the lock.
 *     });
 *
 * The difference from the locks of Laravel's caches: **a lock does not expire, and belongs to the
 * process that has acquired it.** It is held until it is released, or until that process, its
 * connection or this provider ends. It stays held when its lock object is destroyed. A time to live
 * is ignored. A lock cannot be handed over to another process such as a queued job, which could
 * neither restore nor release it. Locks that one process acquires and another releases (as for
 * `ShouldBeUnique`) must stay in a cache; Laravel's own are refused by their names.
 */
final class LockdLockProvider implements LockProvider
{
    /**
     * How names begin for which Laravel needs a lock that outlasts its process or expires, and what
     * to do instead.
     */
    private const REFUSED = [
        'laravel_unique_job:' => 'a unique job is locked by the process that dispatches it, and released by a worker: '
            . 'give the job another store, by its method uniqueVia()',
        'framework/schedule-' => 'a scheduled event is locked longer than schedule:run lasts: set LOCKD_SCHEDULER=true '
            . '(\'scheduler\' in config/lockd.php), or give the schedule another store, by SCHEDULE_CACHE_DRIVER or '
            . 'useCache()',
        'laravel:pulse:check' => 'Pulse lets this lock expire, and never releases it: give Pulse another store, by '
            . 'PULSE_CACHE_DRIVER',
    ];

    private readonly HeldLocks $held;
    private readonly Slots $slots;

    /**
     * @param Client|string $client a client; or an address for {@see Client::connect()}, to which
     *     the provider connects when it is first needed, and again when that connection is lost
     * @param ?string $name the client's name in listings
     * @param float $timeout in seconds, for connecting and for every answer that the server gives
     *     at once
     * @param string $prefix what the name of each lock begins with on the server, so that
     *     applications do not exclude each other by chance
     * @throws InvalidArgumentException for an address that is not valid
     */
    public function __construct(
        Client|string $client,
        ?string $name = null,
        float $timeout = 5.0,
        private readonly string $prefix = '',
    ) {
        $source = new ClientSource($client, $name, $timeout);
        $this->held = new HeldLocks($source, new Reachability(is_string($client) ? $client : null, $timeout));
        $this->slots = new Slots($source);
    }

    /**
     * A lock object; the lock is not acquired yet.
     *
     * @param string $name
     * @param int $seconds ignored: the lock does not expire
     * @param ?string $owner the owner within this process; null: a random name
     * @throws InvalidArgumentException for a name of Laravel's own, of a lock that another process
     *     would release, or that must outlast this process or expire
     */
    public function lock($name, $seconds = 0, $owner = null): LockdLock
    {
        $name = (string) $name;
        foreach (self::REFUSED as $prefix => $reason) {
            if (str_starts_with(strtr($name, '\\', '/'), $prefix)) {
                throw new InvalidArgumentException("\"$name\" cannot be a lock of lockd: $reason");
            }
        }
        $owner = (string) ($owner ?? bin2hex(random_bytes(8)));
        return new LockdLock($this->held, $this->prefix . $name, $owner);
    }

    /**
     * Limits how many processes run something at once, with the methods of Laravel's
     * `Cache::funnel()`:
     *
     *     $locks->funnel('gpu')->limit(4)->block(10)->then(function () {
     *         // At most four are here.
     *     });
     *
     * @param string $name the name of a lock: the holder of `lock($name)` keeps all others out
     */
    public function funnel($name): LockdFunnel
    {
        return new LockdFunnel($this->slots, $this->held, $this->prefix . $name);
    }

    /**
     * The lock that this process holds for that owner, so that it can be released.
     *
     * @param string $name
     * @param string $owner
     * @throws NotHeldException this process does not hold it for that owner; locks cannot be taken
     *     over from another process
     */
    public function restoreLock($name, $owner): LockdLock
    {
        $lock = $this->lock($name, 0, $owner);
        if (!$lock->isOwnedByCurrentProcess()) {
            throw new NotHeldException(
                "\"$name\" cannot be restored: this process does not hold it for that owner, and the lock of another "
                . 'process cannot be taken over'
            );
        }
        return $lock;
    }
}
