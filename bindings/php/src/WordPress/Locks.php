<?php

declare(strict_types=1);

namespace Lockd\WordPress;

use Closure;
use Lockd\Client;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Internal\Body;
use Lockd\Internal\ClientSource;
use Lockd\Internal\Deadline;
use Lockd\Internal\Mode;
use Lockd\Internal\Signals;
use Lockd\Lock;
use Lockd\Message\Connection;

/**
 * Locks for a WordPress site, across all of its web servers.
 *
 *     Locks::ofSite()->once('import', function () {
 *         // No other request of this site runs this now.
 *     });
 *
 * **Without a server, no lock is granted**: acquire() returns null, and what was to run under a
 * lock does not run. PHP's error log says why, and so does the action `lockd_unavailable`, which is
 * given the exception and the lock's name. A notice tells the site's administrators. A server that
 * cannot be reached is not tried again for ten times `LOCKD_TIMEOUT`, so that requests do not wait
 * for it again and again. Constants with invalid values have the same effect as a missing server.
 *
 * Configured by constants in wp-config.php, each of which is optional:
 *
 * - `LOCKD_URL`: the server's address, as for {@see Client::connect()}, also at the places of a
 *   cluster (`tcp://HOST,HOST`); by default `tcp://127.0.0.1:20934`;
 * - `LOCKD_TIMEOUT`: how long to wait for a connection or an answer, in seconds; by default 2;
 * - `LOCKD_PREFIX`: distinguishes this site's locks from those of other sites that use the same
 *   lockd. It must be the same on all of the site's web servers. By default it is the name of the
 *   database, `DB_NAME`; two sites whose databases have the same name on different servers need
 *   different prefixes.
 *
 * The prefix of the site's tables follows, which also distinguishes the blogs of a network.
 */
final class Locks
{
    private static ?self $ofSite = null;

    private ?ClientSource $source = null;
    private ?ConnectException $unreachable = null;
    /** The time before which the server is not tried again. */
    private float $unreachableUntil = 0.0;
    private ?CronRun $cron = null;
    private ?ActionSchedulerLimit $queues = null;
    private readonly Outage $outage;

    /**
     * @param Client|string $client a client; or an address, to which this connects when a lock is
     *     first needed
     * @param Closure(): string $prefix the present prefix of lock names
     * @param float $timeout how long to wait for a connection or an answer, in seconds
     */
    public function __construct(
        private readonly Client|string $client,
        private readonly Closure $prefix,
        private readonly float $timeout = 2.0,
    ) {
        $this->outage = new Outage();
    }

    /**
     * The locks that the constants configure: each request that needs them makes one connection.
     */
    public static function ofSite(): self
    {
        $timeout = self::constant('LOCKD_TIMEOUT') ?? '2';
        return self::$ofSite ??= new self(
            self::constant('LOCKD_URL') ?? 'tcp://127.0.0.1:20934',
            static fn (): string =>
                (self::constant('LOCKD_PREFIX') ?? self::constant('DB_NAME') ?? '') . "/{$GLOBALS['wpdb']->prefix}/",
            is_numeric($timeout) ? (float) $timeout : NAN,
        );
    }

    /**
     * The value of a constant; null: it is not defined. A value that is not scalar becomes '',
     * which is then an error and does not count as undefined.
     */
    private static function constant(string $name): ?string
    {
        if (!defined($name)) {
            return null;
        }
        $value = constant($name);
        return is_scalar($value) ? (string) $value : '';
    }

    /**
     * Acquires a lock of this site, waiting its turn.
     *
     * @param float $timeout how long to wait, in seconds; 0.0: not at all
     * @param ?int $atMost how many may hold it at the same time, as for {@see Client::acquire()}
     * @return ?Lock null: it is busy (perhaps held by this request), or the server does not grant
     *     it. Keep the object: the lock is released when it is destroyed
     * @throws InvalidArgumentException for a name or a time limit that is not valid
     */
    public function acquire(string $name, float $timeout = 0.0, ?int $atMost = null): ?Lock
    {
        try {
            return $this->acquireOrThrow($name, $timeout, $atMost);
        } catch (InvalidArgumentException $e) {
            throw $e;
        } catch (LockdException) {
            return null;
        }
    }

    /**
     * The same, but throws why the server does not grant it. That has been reported then.
     *
     * @internal
     * @return ?Lock null: it is busy
     * @throws LockdException
     */
    public function acquireOrThrow(string $name, float $timeout = 0.0, ?int $atMost = null): ?Lock
    {
        try {
            $lock = $this->client()->acquire(($this->prefix)() . $name, $timeout, atMost: $atMost);
        } catch (AlreadyHeldException) {
            return null;
        } catch (InvalidArgumentException $e) {
            throw $e;
        } catch (LockdException $e) {
            $this->report($e, $name);
            throw $e;
        }
        $this->outage->ends();
        return $lock;
    }

    /**
     * Says in the error log, to plugins and to the site's administrators that a lock was not
     * granted, or was lost.
     *
     * @internal
     */
    public function report(LockdException $e, string $name): void
    {
        $name = ($this->prefix)() . $name;
        error_log("lockd: no lock \"$name\": {$e->getMessage()}");
        $this->outage->begins($e);
        do_action('lockd_unavailable', $e, $name);
    }

    /**
     * Calls `$body` while holding the lock, unless another holds it.
     *
     * @param callable(): mixed $body must be finished when it returns, as for
     *     {@see Client::synchronized()}
     * @param float $timeout how long to wait for the lock, in seconds; 0.0: not at all
     * @param ?int $atMost how many may run it at the same time; null: one
     * @return bool whether it was called
     * @throws InvalidArgumentException for a name or a time limit that is not valid; or `$body` is
     *     a generator function, or its result is not finished when it returns
     */
    public function once(string $name, callable $body, float $timeout = 0.0, ?int $atMost = null): bool
    {
        Body::mustRunWhenCalled($body);
        [$lock, $result] = [null, null];
        try {
            // If a signal handler threw after the grant but before the lock is stored, the lock
            // would stay held for ever.
            Signals::deferred(function () use (&$lock, $name, $timeout, $atMost): void {
                $lock = $this->acquire($name, $timeout, $atMost);
            });
            if ($lock === null) {
                return false;
            }
            $result = $body();
        } finally {
            try {
                $lock?->release();
            } catch (LockdException $e) {
                // The body has run, but may have lost the lock before its end.
                $this->report($e, $name);
            }
        }
        Body::mustBeDone($result);
        return true;
    }

    /**
     * Like add_action() for the hook of a recurring event. The callback is skipped if it is running
     * for the same event elsewhere, or if there is no lockd. Not for events that do not recur: a
     * skipped event would be lost.
     *
     * @param callable $callback must be finished when it returns, as for
     *     {@see Client::synchronized()}
     * @param float $timeout how long to wait until the event runs nowhere else, in seconds; 0.0:
     *     not at all
     * @throws InvalidArgumentException the callback is a generator function: calling it runs none
     *     of its code
     */
    public function cronOnce(
        string $hook,
        callable $callback,
        int $priority = 10,
        int $acceptedArgs = 1,
        float $timeout = 0.0,
    ): void {
        Body::mustRunWhenCalled($callback);
        $body = function (mixed ...$arguments) use ($hook, $callback, $timeout): void {
            // WordPress distinguishes the events of a hook by their arguments.
            $event = md5(serialize($arguments));
            $this->once("cron/$hook/$event", static fn (): mixed => $callback(...$arguments), $timeout);
        };
        add_action($hook, $body, $priority, $acceptedArgs);
    }

    /**
     * Limits how many queues of Action Scheduler (WooCommerce's, for example) run at the same time
     * on all of the site's servers. The limit is exact, and replaces Action Scheduler's own, which
     * counts the claims in the database: those of processes that have died stay there for minutes.
     * Without a lockd no queue runs.
     *
     * @param int $queues how many, from 1 on
     * @throws InvalidArgumentException
     */
    public function limitActionScheduler(int $queues = 1): void
    {
        Mode::of(false, $queues);
        $this->queues ??= new ActionSchedulerLimit($this);
        $this->queues->register($queues);
    }

    /** Adds the plugin's hooks to WordPress. To call it again changes nothing. */
    public function register(): void
    {
        if ($this->cron === null) {
            $this->cron = new CronRun($this);
            $this->cron->register();
            $this->outage->register();
        }
    }

    private function client(): Client
    {
        if ($this->unreachable !== null && Deadline::now() < $this->unreachableUntil) {
            throw $this->unreachable;
        }
        try {
            Connection::mustBeLimited($this->timeout, 'the time limit of a connection (LOCKD_TIMEOUT)');
            $this->source ??= new ClientSource($this->client, null, $this->timeout);
            return $this->source->client();
        } catch (ConnectException | InvalidArgumentException $e) {
            $this->unreachable = $e instanceof ConnectException ? $e : new ConnectException($e->getMessage(), 0, $e);
            $this->unreachableUntil = Deadline::now() + 10.0 * $this->timeout;
            throw $this->unreachable;
        }
    }
}
