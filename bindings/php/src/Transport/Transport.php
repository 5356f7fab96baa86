<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Inspection;
use Lockd\Internal\Deadline;
use Lockd\Internal\Mode;
use Lockd\ListedLock;
use Lockd\SessionState;

/**
 * One owner of locks, on a server or in this process: the operations that {@see \Lockd\Client}
 * needs. Names have been checked before. Signal handlers are deferred while one of these methods
 * runs, except where it calls {@see \Lockd\Internal\Signals::dispatch()}. Every method throws a
 * {@see LockdException} for an outcome that is not among its results.
 *
 * @internal
 */
interface Transport
{
    /** Acquires a lock, waiting its turn; null: not granted within the time limit. */
    public function acquire(string $name, Mode $mode, Deadline $deadline): ?Grant;

    /**
     * Changes the mode of a lock. If there are more holders than the new mode allows, it waits
     * ahead of the queue for them to release it; null: not converted within the time limit, the
     * lock is held as before.
     */
    public function convert(string $name, Mode $from, Mode $to, Deadline $deadline): ?Grant;

    /** Releases a lock; false: it is not held. */
    public function release(string $name): bool;

    /** Whether this owner holds the lock: asks the broker, and does not rely on memory. */
    public function holds(string $name): bool;

    public function inspect(string $name): Inspection;

    /** @return iterable<ListedLock> in the order of their names */
    public function list(string $prefix): iterable;

    /**
     * What is known of the session without waiting. With several servers: of those that one of
     * these names belongs to; without any name it is alive on at least one server.
     *
     * @param list<string> $names the names that it holds and waits for
     */
    public function state(array $names): SessionState;

    /**
     * Waits until the session is not in doubt any more, for as long as that takes within the limit.
     *
     * @param list<string> $names as for {@see state()}
     */
    public function waitCertain(array $names, Deadline $deadline): SessionState;

    /** Whether the session can resume. With several servers: on all that are connected. */
    public function isResumable(): bool;

    /** Whether the session is lost. With several servers: on all of them. */
    public function hasEnded(): bool;

    /** Whether there is no connection to a server that answered at the start. */
    public function hasLostAServer(): bool;

    /**
     * Lets the programs that this process starts hold the locks: from now on {@see close()} closes
     * only this process's copies of the connections, and the session ends when all copies are
     * closed.
     *
     * @throws RefusedException programs do not inherit the connections
     */
    public function keepForChildren(): void;

    /** Ends the session. In a forked child it only closes the child's copy. */
    public function close(): void;
}
