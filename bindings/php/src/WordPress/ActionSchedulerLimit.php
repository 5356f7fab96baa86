<?php

declare(strict_types=1);

namespace Lockd\WordPress;

use Lockd\Internal\Signals;
use Lockd\Lock;
use WP_CLI;

/**
 * Lets at most so many queues of Action Scheduler run at the same time on all servers of a site. A
 * queue takes one of so many slots when it begins. Without a slot, Action Scheduler is told that as
 * many queues run as may. Knows Action Scheduler's hooks, and none of its classes or tables.
 *
 * @internal
 */
final class ActionSchedulerLimit
{
    private const LOCK = 'action-scheduler';

    /** How long to wait between two actions while the slot is in doubt, in seconds. */
    private const DOUBT = 20.0;

    /** How many queues may run; 0: the hooks have not been added. */
    private int $queues = 0;
    private ?Lock $slot = null;
    /** How many beginnings have not ended: a command of WP-CLI has several queues, one by one. */
    private int $begun = 0;

    public function __construct(private readonly Locks $locks)
    {
    }

    public function register(int $queues): void
    {
        $wasRegistered = $this->queues > 0;
        $this->queues = $queues;
        if ($wasRegistered) {
            return;
        }
        add_action('action_scheduler_before_process_queue', $this->begin(...), PHP_INT_MIN);
        add_action('action_scheduler_after_process_queue', $this->end(...), PHP_INT_MAX);
        add_filter('action_scheduler_queue_runner_concurrent_batches', $this->allowed(...), PHP_INT_MAX);
        $stop = 'action_scheduler_maximum_execution_time_likely_to_be_exceeded';
        add_filter($stop, $this->mustStop(...), PHP_INT_MAX);
        if (defined('WP_CLI') && constant('WP_CLI')) {
            // The command asks how many may run before its first queue begins.
            WP_CLI::add_hook('before_invoke:action-scheduler run', $this->begin(...));
            WP_CLI::add_hook('after_invoke:action-scheduler run', $this->end(...));
        }
    }

    private function begin(): void
    {
        if ($this->begun++ === 0) {
            Signals::deferred(function (): void {
                $this->slot = $this->locks->acquire(self::LOCK, 0.0, $this->queues);
            });
        }
    }

    private function end(): void
    {
        if ($this->begun > 0 && --$this->begun === 0) {
            $this->slot = null;
        }
    }

    /**
     * A filter: how many queues may run, where Action Scheduler asks before it starts one. With a
     * slot its own count does not matter: it includes the queues of processes that have died.
     */
    private function allowed(mixed $queues): mixed
    {
        if ($this->begun === 0) {
            return $this->queues;
        }
        return $this->slot?->isHeld() === true ? PHP_INT_MAX : 0;
    }

    /** A filter: after each action, whether the queue ends here. It does if its slot was lost. */
    private function mustStop(mixed $stop): mixed
    {
        return $this->slot === null || $this->slot->isHeld(self::DOUBT) ? $stop : true;
    }
}
