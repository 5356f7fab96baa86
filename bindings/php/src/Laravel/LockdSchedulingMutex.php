<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use DateTimeInterface;
use Illuminate\Console\Scheduling\Event;
use Illuminate\Console\Scheduling\SchedulingMutex;
use Illuminate\Support\Carbon;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;

/**
 * The locks of `onOneServer()`: of all servers, one runs the event of a minute. The clocks of
 * servers differ, and some run their schedule late. So the lock must stay held when `schedule:run`
 * has ended, and a {@see Holder} holds it, a process that is started when it is first needed.
 */
final class LockdSchedulingMutex implements SchedulingMutex
{
    /** For how many minutes longer a lock is held than it may be asked for. */
    private const CLOCKS_DIFFER_BY = 5;

    /**
     * @internal
     * @param int $lateMinutes how many minutes after its minute an event may be asked for: at least 1
     */
    public function __construct(
        private readonly SeparateLocks $locks,
        private readonly HolderProcess $holder,
        private readonly int $lateMinutes = 10,
    ) {
    }

    /**
     * Whether this server is the one that runs the event of that minute.
     *
     * @return bool false: another server does, or has done so
     * @throws RefusedException it is too late: whether another server has run the event is forgotten
     * @throws LockdException for example because there is no server; then the event must not run
     */
    public function create(Event $event, DateTimeInterface $time): bool
    {
        $late = $this->lateness($event, $time);
        $seconds = 60 * ($this->lateMinutes + self::CLOCKS_DIFFER_BY) - max(0, $late);
        $isTaken = $this->holder->try($this->locks->nameOf(self::nameOf($event, $time)), $seconds);
        // This process may have been stopped before it asked, until the server that has run the event
        // had forgotten it. If it is not too late now, the lock was still remembered when it was
        // granted.
        $this->lateness($event, $time);
        return $isTaken;
    }

    /**
     * How many seconds after the beginning of that minute it is.
     *
     * @throws RefusedException it is too late to ask
     */
    private function lateness(Event $event, DateTimeInterface $time): int
    {
        $late = Carbon::now()->getTimestamp() - $time->getTimestamp() + (int) $time->format('s');
        if ($late >= 60 * $this->lateMinutes) {
            throw new RefusedException(
                "\"{$event->getSummaryForDisplay()}\" was due at {$time->format('H:i')}, and its turn came only "
                . intdiv($late, 60) . ' minutes later: whether another server has run it is not known any more. '
                . 'Let the events before it run in the background, or raise LOCKD_LATE_MINUTES'
            );
        }
        return $late;
    }

    /**
     * Whether a server has taken the event of that minute, as far as it is remembered.
     *
     * @throws LockdException
     */
    public function exists(Event $event, DateTimeInterface $time): bool
    {
        return $this->locks->isHeld(self::nameOf($event, $time));
    }

    private static function nameOf(Event $event, DateTimeInterface $time): string
    {
        return $event->mutexName() . $time->format('Hi');
    }
}
