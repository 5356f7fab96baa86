<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Closure;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Lock;
use Lockd\Message\Address;
use Lockd\Message\Connection;
use Lockd\Message\Rendezvous;
use Lockd\Transport\Transport;
use Lockd\WaitEvent;
use Throwable;

/**
 * A session and its lock in one call, which waits for the server too: a client that only waits
 * holds nothing, so a lost connection costs no more than the place in the queue. Decides which
 * failures are waited through; knows nothing of the transport.
 *
 * A grant counts only on the session that it came on. A session that is lost is closed before the
 * next one is opened, and nothing is asked of it any more. So there is never a choice between two
 * grants.
 *
 * @internal
 */
final class PatientAcquire
{
    /**
     * The longest time, in seconds, for which a signal handler is deferred if its signal comes just
     * before a pause.
     */
    private const SLICE = 0.25;

    private readonly RetryPacer $pacer;

    /** What the callback has thrown. */
    private ?Throwable $thrown = null;

    /**
     * @param Closure(Address, float): Transport $open opens a session on this server, within so
     *     many seconds
     * @param float $connectTimeout for each attempt to connect, in seconds
     * @param ?Closure(WaitEvent, ?string): mixed $onWait
     */
    public function __construct(
        private readonly Closure $open,
        private readonly float $connectTimeout,
        private readonly ?Closure $onWait,
    ) {
        Connection::mustBeLimited($connectTimeout, 'connectTimeout, the time limit of a connection,');
        $this->pacer = new RetryPacer();
    }

    /**
     * @param ?float $timeout for everything, in seconds; null: without limit; 0.0: one attempt
     * @return ?Lock null: not granted within the time limit. The session ends with the lock
     * @throws LockdException
     */
    public function acquire(string $url, string $name, Mode $mode, ?float $timeout): ?Lock
    {
        $lock = null;
        try {
            Signals::deferred(function () use (&$lock, $url, $name, $mode, $timeout): void {
                Owner::checkName($name);
                $deadline = Deadline::in($timeout);
                // Of several servers, only the one that the name belongs to is asked and waited for.
                $servers = Address::parseList($url);
                assert($servers !== []);
                $server = $servers[Rendezvous::choose(array_keys($servers), $name)];
                $wants = fn (Owner $owner): ?Lock => $this->acquireOn($owner, $name, $mode, $timeout, $deadline);
                $lock = $this->retry($server, $wants, $timeout === 0.0, $deadline);
            });
        } catch (Throwable $e) {
            // A signal handler may have thrown just after the grant.
            try {
                $lock?->release();
            } catch (LockdException) {
                // A lost lock need not be released.
            }
            throw $e;
        }
        return $lock;
    }

    /**
     * Opens one session after the other until one of them gives an answer.
     *
     * @param Closure(Owner): ?Lock $acquire
     */
    private function retry(Address $server, Closure $acquire, bool $isTry, Deadline $deadline): ?Lock
    {
        while (true) {
            $lasted = 0.0;
            // A try has no time of its own for connecting.
            $within = $isTry ? $this->connectTimeout : min($this->connectTimeout, $deadline->remaining());
            try {
                $transport = ($this->open)($server, max(0.001, $within));
                $opened = Deadline::now();
                try {
                    return $this->onSession($transport, $acquire);
                } finally {
                    $lasted = Deadline::now() - $opened;
                }
            } catch (LockdException $e) {
                if (!$this->isAbsence($e)) {
                    throw $e;
                }
                $absence = $e instanceof ConnectException || $e instanceof ConnectionLostException
                    ? $e : new ConnectionLostException($e->getMessage(), 0, $e);
            }
            if ($isTry) {
                throw $absence;
            }
            $this->report(WaitEvent::NoServer, $absence->getMessage());
            self::sleep(min($this->pacer->pause($lasted), $deadline->remaining()));
            if ($deadline->isOver()) {
                throw $absence;
            }
        }
    }

    /**
     * Closes the session unless it got the lock. This is not left to the destructor, because an
     * exception's trace may refer to the session.
     *
     * @param Closure(Owner): ?Lock $acquire
     */
    private function onSession(Transport $transport, Closure $acquire): ?Lock
    {
        $lock = null;
        try {
            $lock = $acquire(new Owner($transport, endsWithLock: true));
            return $lock;
        } finally {
            if ($lock === null) {
                $transport->close();
            }
        }
    }

    /** Asks for the lock on this session, and waits for it in the queue. */
    private function acquireOn(Owner $owner, string $name, Mode $mode, ?float $timeout, Deadline $deadline): ?Lock
    {
        $refused = null;
        try {
            // First without waiting: only then is it known that there will be a wait, and why.
            $lock = $owner->acquire($name, $mode, 0.0);
        } catch (RefusedException $e) {
            if ($e->cause !== 'grace' || $timeout === 0.0) {
                throw $e;
            }
            // The server grants nothing yet. A request that waits gets its place in the queue.
            [$lock, $refused] = [null, $e];
        }
        if ($lock !== null || $timeout === 0.0) {
            return $lock;
        }
        $this->report(WaitEvent::Waiting, $refused?->getMessage());
        if ($deadline->isOver()) {
            return $refused === null ? null : throw $refused;
        }
        return $owner->acquire($name, $mode, $timeout === null ? null : $deadline->remaining());
    }

    /** Whether there was no server, as opposed to a mistake that no waiting corrects. */
    private function isAbsence(LockdException $e): bool
    {
        return match (true) {
            // A handler or the callback may use clients of its own.
            $e === $this->thrown, Signals::threw($e) => false,
            $e instanceof ConnectException => $e->isAbsence,
            $e instanceof RefusedException => $e->cause === 'stopping',
            default => $e instanceof ConnectionLostException,
        };
    }

    private function report(WaitEvent $event, ?string $reason): void
    {
        try {
            if ($this->onWait !== null) {
                ($this->onWait)($event, $reason);
            }
        } catch (Throwable $e) {
            $this->thrown = $e;
            throw $e;
        }
    }

    /** Sleeps while signal handlers run; one that throws ends the wait. */
    private static function sleep(float $seconds): void
    {
        $end = Deadline::in($seconds);
        do {
            Signals::dispatch();
            // A signal ends it early.
            usleep(max(0, (int) ceil(min(self::SLICE, $end->remaining()) * 1e6)));
        } while (!$end->isOver());
    }
}
