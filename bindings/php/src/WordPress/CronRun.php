<?php

declare(strict_types=1);

namespace Lockd\WordPress;

use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\LockdException;
use Lockd\Internal\Signals;
use Lockd\Lock;
use WP_CLI;

/**
 * Lets one run of the site's cron events go on at a time: either a request to wp-cron.php or WP-CLI's
 * `wp cron event run`. A second one runs nothing. Two runs at once would not only call the same
 * event twice: WordPress keeps all events in one option, and each run writes its own copy of it. So
 * an event that one run has done would come back with what the other run writes.
 *
 * Knows WordPress's hooks and those of WP-CLI. What the locks do without a server is
 * {@see Locks}' concern.
 *
 * @internal
 */
final class CronRun
{
    private const LOCK = 'wp-cron';

    /** How long to wait between two events while the lock is in doubt, in seconds. */
    private const DOUBT = 20.0;

    private ?Lock $lock = null;
    /** @var list<string> the hooks of all events, due or not */
    private array $hooks = [];

    public function __construct(private readonly Locks $locks)
    {
    }

    public function register(): void
    {
        // After all other filters, which might add jobs.
        add_filter('pre_get_ready_cron_jobs', $this->readyJobs(...), PHP_INT_MAX);
        add_filter('pre_reschedule_event', $this->stopIfLost(...), PHP_INT_MIN);
        add_filter('pre_unschedule_event', $this->stopIfLost(...), PHP_INT_MIN);
        if (defined('WP_CLI') && constant('WP_CLI')) {
            // WP-CLI marks itself as doing cron only when it has read the events. Before version
            // 2.8 it reads them without the filter.
            WP_CLI::add_hook('before_invoke:cron event run', $this->beforeCommand(...));
            WP_CLI::add_hook('after_invoke:cron event run', $this->end(...));
        }
    }

    /**
     * A filter: a request to wp-cron.php finds no due jobs while another run goes on, and none
     * without a lockd.
     *
     * @param mixed $jobs null: WordPress looks for due jobs itself
     */
    private function readyJobs(mixed $jobs): mixed
    {
        if (!wp_doing_cron() || $jobs === []) {
            return $jobs;
        }
        try {
            return $this->begin() ? $jobs : [];
        } catch (LockdException) {
            return [];
        }
    }

    /** Ends WP-CLI's command before it has read the events, unless no other run goes on. */
    private function beforeCommand(): void
    {
        try {
            if ($this->begin()) {
                return;
            }
        } catch (LockdException $e) {
            WP_CLI::error("lockd granted no lock, so no cron event was run: {$e->getMessage()}");
        }
        // A crontab that calls it every minute should not send a mail each time. But someone who
        // has named an event must be told that it was not run.
        if (WP_CLI::get_runner()->assoc_args['due-now'] ?? false) {
            WP_CLI::log('Another run of this site\'s cron events goes on: nothing was run.');
            WP_CLI::halt(0);
        }
        WP_CLI::error('another run of this site\'s cron events goes on, so no cron event was run. Try again later.');
    }

    /**
     * @return bool whether this process has the lock; false: another run goes on
     * @throws LockdException
     */
    private function begin(): bool
    {
        if ($this->lock?->isHeld() === true) {
            return true;
        }
        Signals::deferred(function (): void {
            $this->lock = $this->locks->acquireOrThrow(self::LOCK);
            // The process may outlive the request and serve others.
            register_shutdown_function($this->end(...));
        });
        if ($this->lock === null) {
            return false;
        }
        // WordPress has read its options before this run had the lock. Since then another run may
        // have done events that are still due in this copy.
        wp_cache_delete('alloptions', 'options');
        wp_cache_delete('cron', 'options');
        foreach (_get_cron_array() ?: [] as $events) {
            foreach (array_keys($events) as $hook) {
                $this->hooks[] = (string) $hook;
            }
        }
        return true;
    }

    private function end(): void
    {
        $this->lock = null;
    }

    /**
     * A filter that changes nothing. WordPress and WP-CLI apply it before each event. If the lock
     * was lost during the events before, another run may go on, so this one stops here. Its events
     * are still due.
     */
    private function stopIfLost(mixed $value): mixed
    {
        if ($this->lock === null || $this->isDuringAnEvent() || $this->lock->isHeld(self::DOUBT)) {
            return $value;
        }
        $this->lock = null;
        $text = 'the lock was lost while cron events ran, so the events that were left have not been run';
        $this->locks->report(new ConnectionLostException($text), self::LOCK);
        if (defined('WP_CLI') && constant('WP_CLI')) {
            WP_CLI::error("lockd: $text");
        }
        exit;
    }

    /**
     * Whether an event's own code runs now. It may change the schedule too, and is not stopped in the
     * middle.
     */
    private function isDuringAnEvent(): bool
    {
        foreach ($this->hooks as $hook) {
            if (doing_action($hook)) {
                return true;
            }
        }
        return false;
    }
}
