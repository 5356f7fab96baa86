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
use Lockd\Internal\Signals;
use Lockd\Lock;
use Throwable;

/**
 * Locks for a WordPress site, over all of its web servers.
 *
 *     Locks::ofSite()->once('import', function () {
 *         // No other request of this site is at it.
 *     });
 *
 * **Without a server nothing is held**: what asks for a lock does not get it, what was to run under it does not run,
 * PHP's error log says why, and so does the action `lockd_unavailable`, which is given the exception and the lock's
 * name. A server that cannot be reached is not tried again for ten times as long as it may take to answer, so that
 * requests do not wait for it again and again. Constants that make no sense are like a server that is not there.
 *
 * Set up by constants in wp-config.php, each of which may be missing:
 *
 * - `LOCKD_URL`: where the server is, as for {@see Client::connect()}; `tcp://127.0.0.1:20934`;
 * - `LOCKD_TIMEOUT`: how long to wait for a connection or an answer, in seconds; 2;
 * - `LOCKD_PREFIX`: what tells this site's locks from those of other sites that use the same lockd. It has to be the
 *   same on all of the site's web servers. The name of the database, `DB_NAME`; two sites whose databases are of the
 *   same name but on different servers have to be told apart here.
 *
 * After that prefix stands that of the tables, which also tells the blogs of a network from each other.
 */
final class Locks
{
    private static ?self $ofSite = null;

    private ?ClientSource $source = null;
    private ?ConnectException $unreachable = null;
    /** Until when it is not tried again. */
    private float $unreachableUntil = 0.0;
    private ?Lock $cron = null;

    /**
     * @param Client|string $client a client; or an address, which connects when it is first needed
     * @param Closure(): string $prefix of the names of locks, as it is at the moment
     * @param float $timeout how long to wait for a connection or an answer, in seconds
     */
    public function __construct(
        private readonly Client|string $client,
        private readonly Closure $prefix,
        private readonly float $timeout = 2.0,
    ) {
    }

    /** Those that the constants set up: one connection for each request that needs one. */
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

    /** Null: there is none. One that is no text is an empty one, which is not to be taken for none. */
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
     * @return ?Lock null: it is busy, also if this request holds it already, or the server does not grant it. Keep
     *     it: when it goes, the lock is released
     * @throws InvalidArgumentException for a name or a time limit that makes no sense
     */
    public function acquire(string $name, float $timeout = 0.0): ?Lock
    {
        $name = ($this->prefix)() . $name;
        try {
            return $this->client()->acquire($name, $timeout);
        } catch (AlreadyHeldException) {
            return null;
        } catch (InvalidArgumentException $e) {
            throw $e;
        } catch (LockdException $e) {
            self::report($e, $name);
            return null;
        }
    }

    /**
     * Calls `$body` unless somebody is at it already.
     *
     * @param callable(): mixed $body must be done when it returns, as for {@see Client::synchronized()}
     * @param float $timeout how long to wait until nobody is, in seconds; 0.0: not at all
     * @return bool whether it was called
     * @throws InvalidArgumentException for a name or a time limit that makes no sense; or the body does not run, or not
     *     to its end, while it is called
     */
    public function once(string $name, callable $body, float $timeout = 0.0): bool
    {
        Body::mustRunWhenCalled($body);
        [$lock, $result] = [null, null];
        try {
            // A handler that threw when the lock is got, but not kept yet, would leave it held for ever.
            Signals::deferred(function () use (&$lock, $name, $timeout): void {
                $lock = $this->acquire($name, $timeout);
            });
            if ($lock === null) {
                return false;
            }
            $result = $body();
        } finally {
            try {
                $lock?->release();
            } catch (LockdException $e) {
                // It was called, but perhaps was not alone at the end.
                self::report($e, $lock?->name() ?? $name);
            }
        }
        Body::mustBeDone($result);
        return true;
    }

    /**
     * Like add_action() for the hook of a recurring event: the callback is left out while it is at the same event
     * elsewhere, and if there is no lockd. An event that does not recur would be lost so.
     *
     * @param callable $callback must be done when it returns, as for {@see Client::synchronized()}
     * @param float $timeout how long to wait until nobody is at the event, in seconds; 0.0: not at all
     * @throws InvalidArgumentException the callback is a generator function, which does not run when it is called
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
            // WordPress tells the events of a hook from each other by their arguments.
            $event = md5(serialize($arguments));
            $this->once("cron/$hook/$event", static fn (): mixed => $callback(...$arguments), $timeout);
        };
        add_action($hook, $body, $priority, $acceptedArgs);
    }

    /**
     * Keeps wp-cron.php from running twice at the same time, on whichever servers: the second one finds nothing to
     * do, and so does the first one if there is no lockd. It holds the lock until its request ends. A filter for
     * `pre_get_ready_cron_jobs`, which there is from WordPress 5.1 on.
     *
     * @param mixed $jobs null: WordPress is to look for what is due
     */
    public function readyCronJobs(mixed $jobs): mixed
    {
        if (!wp_doing_cron() || $jobs === [] || $this->cron?->isHeld() === true) {
            return $jobs;
        }
        Signals::deferred(function (): void {
            $this->cron = $this->acquire('wp-cron');
            // The process may live on, and serve other requests.
            register_shutdown_function(function (): void {
                $this->cron = null;
            });
        });
        return $this->cron === null ? [] : $jobs;
    }

    private function client(): Client
    {
        if ($this->unreachable !== null && Deadline::now() < $this->unreachableUntil) {
            throw $this->unreachable;
        }
        try {
            $this->source ??= new ClientSource($this->client, null, $this->timeout);
            return $this->source->client();
        } catch (ConnectException | InvalidArgumentException $e) {
            $this->unreachable = $e instanceof ConnectException ? $e : new ConnectException($e->getMessage(), 0, $e);
            $this->unreachableUntil = Deadline::now() + 10.0 * $this->timeout;
            throw $this->unreachable;
        }
    }

    private static function report(Throwable $e, string $name): void
    {
        error_log("lockd: no lock \"$name\": {$e->getMessage()}");
        do_action('lockd_unavailable', $e, $name);
    }
}
