<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Exception\LockdException;
use Lockd\Inspection;
use Lockd\Internal\Deadline;
use Lockd\ListedLock;

/**
 * One owner of locks, somewhere: what {@see \Lockd\Client} needs done there. Names have been checked, and signal
 * handlers wait while one of these methods runs, but where it calls {@see \Lockd\Internal\Signals::dispatch()}.
 * Every method throws a {@see LockdException} for what is not among its results.
 *
 * @internal
 */
interface Transport
{
    /** Waits its turn; null: not within the time limit. */
    public function acquire(string $name, bool $shared, Deadline $deadline): ?Grant;

    /** Waits, ahead of others, for the other holders to go; null: not within the time limit, held as before. */
    public function convert(string $name, bool $shared, Deadline $deadline): ?Grant;

    /** False: it is not held. */
    public function release(string $name): bool;

    /** Whether this owner holds it: not from memory, but by asking whoever grants it. */
    public function holds(string $name): bool;

    public function inspect(string $name): Inspection;

    /** @return iterable<ListedLock> in the order of their names */
    public function list(string $prefix): iterable;

    /**
     * Whether the session stands, as far as can be known without asking: with several servers, on all that one of
     * these names belongs to, and on one at least.
     *
     * @param list<string> $names what it holds and waits for
     */
    public function stands(array $names): bool;

    /** Whether nothing of it stands any more: with several servers, on none of them. */
    public function hasEnded(): bool;

    /** Whether a server is gone that was there at the start. */
    public function hasLostAServer(): bool;

    /** Ends the session; in a forked child it only lets go of it. */
    public function close(): void;
}
