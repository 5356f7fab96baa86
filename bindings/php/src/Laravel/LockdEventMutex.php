<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Closure;
use Illuminate\Console\Scheduling\CallbackEvent;
use Illuminate\Console\Scheduling\Event;
use Illuminate\Console\Scheduling\EventMutex;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Lock;

/**
 * The locks of `withoutOverlapping()`. The lock of an event is held as long as the event runs, and
 * not longer: it needs no time to live, and ends at once when everything is killed.
 *
 * The scheduler and the command that it starts hold the lock together, because the command inherits
 * the lock's connection. So the lock lasts if the scheduler ends before the command, as it always
 * does with `runInBackground()`. The lock of a closure is the scheduler's alone.
 */
final class LockdEventMutex implements EventMutex
{
    /** @var array<array-key, Lock> by the event's name */
    private array $held = [];

    /**
     * @internal
     * @param ?Closure(LockdException): void $report is told that a lock was lost while its event
     *     ran
     */
    public function __construct(private readonly SeparateLocks $locks, private readonly ?Closure $report = null)
    {
    }

    /**
     * Acquires the lock if it is free.
     *
     * @return bool false: the event is running, here or elsewhere
     * @throws InvalidArgumentException its command would not inherit the lock: it runs in the
     *     background, or the connection is a TLS one
     * @throws LockdException for example because there is no server; then the event must not run
     */
    public function create(Event $event): bool
    {
        $hasCommand = !$event instanceof CallbackEvent;
        if ($hasCommand) {
            $this->mustPassOnConnections($event);
        }
        $lock = $this->locks->tryToAcquire($event->mutexName());
        if ($lock === null) {
            return false;
        }
        if ($hasCommand) {
            $lock->keepForChildren();
            // An event that is repeated has the exit code of the time before. `forget` must know
            // whether the command has ended this time.
            $event->exitCode = null;
        }
        $this->held[$event->mutexName()] = $lock;
        return true;
    }

    /**
     * Whether the event is running, here or elsewhere. False also if there is no server: then
     * `create` throws, for that event alone, while Laravel would not survive an exception here.
     */
    public function exists(Event $event): bool
    {
        try {
            return $this->locks->isHeld($event->mutexName());
        } catch (LockdException) {
            return false;
        }
    }

    /**
     * Ends this process's part in the lock. In a process that has not acquired it, such as
     * `schedule:finish`, this does nothing.
     *
     * If the command has ended, the lock is free. If it may be running (Laravel also calls this when
     * a signal ends the scheduler), the lock is free when the command has ended.
     */
    public function forget(Event $event): void
    {
        $lock = $this->take($event);
        if ($lock === null) {
            return;
        }
        if (!$event instanceof CallbackEvent && $event->exitCode === null) {
            $lock->leaveToChildren();
            return;
        }
        try {
            $lock->release();
        } catch (LockdException $e) {
            // Laravel calls this in the middle of its work, which must go on.
            if ($this->report !== null) {
                ($this->report)($e);
            }
        }
    }

    /**
     * To be called when the event has been started: leaves the lock of a command that runs in the
     * background to that command. So the commands that are started next do not inherit it.
     *
     * @internal
     */
    public function started(Event $event): void
    {
        if ($event->runInBackground) {
            $this->take($event)?->leaveToChildren();
        }
    }

    private function take(Event $event): ?Lock
    {
        $lock = $this->held[$event->mutexName()] ?? null;
        unset($this->held[$event->mutexName()]);
        return $lock;
    }

    /**
     * @throws InvalidArgumentException the command would run without the lock when the scheduler
     *     has ended
     */
    private function mustPassOnConnections(Event $event): void
    {
        if ($this->locks->isTls) {
            throw new InvalidArgumentException(
                "\"{$event->getSummaryForDisplay()}\" cannot have withoutOverlapping() on lockd over TLS (LOCKD_URL "
                . 'begins with tls://): its command must inherit the connection with the lock, which is not possible '
                . 'with TLS. Take the lock in the command, by Cache::store(\'lockd\')->lock(), or reach lockd by '
                . 'tcp:// or unix:, through a tunnel for example'
            );
        }
        if (!$event->runInBackground) {
            return;
        }
        $reason = match (true) {
            (string) $event->user !== '' => 'sudo, which user() starts, closes the connection with the lock',
            DIRECTORY_SEPARATOR === '\\' => 'Windows does not pass on the connection with the lock',
            default => null,
        };
        if ($reason !== null) {
            throw new InvalidArgumentException(
                "\"{$event->getSummaryForDisplay()}\" cannot have runInBackground() together with withoutOverlapping() "
                . "on lockd: $reason"
            );
        }
    }
}
