<?php

declare(strict_types=1);

namespace Lockd;

use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\NotHeldException;
use Lockd\Exception\RefusedException;
use Lockd\Internal\Mode;
use Lockd\Internal\Owner;
use Lockd\Transport\Grant;

/**
 * A lock that was granted. It is held until it is released, until this object is destroyed (which
 * releases it), or until its connection ends and is not resumed. Made by {@see Client::acquire()} and
 * {@see Client::connectAndAcquire()}.
 */
final class Lock
{
    private int $token;
    private ?bool $orphaned;
    private bool $isForChildren = false;

    /** @internal */
    public function __construct(
        private readonly Owner $owner,
        private readonly string $name,
        private Mode $mode,
        Grant $grant,
    ) {
        $this->token = $grant->token;
        $this->orphaned = $grant->orphaned;
    }

    public function name(): string
    {
        return $this->name;
    }

    /** Whether it is shared or limited, and not exclusive: others may hold it at the same time. */
    public function isShared(): bool
    {
        return !$this->mode->isExclusive();
    }

    /**
     * How many holders this lock allows: there are never more while it is held. 1: it is exclusive;
     * null: any number.
     */
    public function limit(): ?int
    {
        return $this->mode->holdersMax;
    }

    /**
     * The fencing token: higher than that of every earlier grant of this name, below 2^53. A
     * resource that remembers the highest token it has seen for each lock name can refuse a holder
     * that comes too late, if the lock is always exclusive. The holders of a shared or limited lock
     * hold it at the same time with different tokens, all of them valid: refuse only what is lower
     * than the token of an exclusive grant. Tokens of different names cannot be compared. The token
     * changes when the lock is converted so that it allows fewer holders.
     */
    public function token(): int
    {
        return $this->token;
    }

    /**
     * Whether the last exclusive holder vanished without releasing the lock: its work may be half
     * done. This lock itself may be exclusive, shared or limited.
     */
    public function orphaned(): bool
    {
        return $this->orphaned ??= $this->owner->withTransport(
            $this->name,
            fn (Transport\Transport $transport): bool => $transport->inspect($this->name)->orphaned,
        );
    }

    /**
     * Whether the lock is held now: asks the server. The answer is no, and not an exception, if the
     * lock was released or lost, if the server does not reply within the connection's time limit,
     * and in a forked child. It is no in doubt, too, when the time for that is over.
     *
     * @param float $doubt how long to wait while the session is in doubt, in seconds: as for
     *     {@see waitCertain()}. For a session that does not resume this changes nothing
     * @throws InvalidArgumentException for a number below zero, or NAN
     */
    public function isHeld(float $doubt = 0.0): bool
    {
        if ($doubt !== 0.0) {
            $this->waitCertain($doubt);
        }
        return $this->owner->holds($this->name, $this->token);
    }

    /**
     * What is known of this lock without waiting: as {@see Client::state()}. A lock that was
     * released is lost.
     */
    public function state(): SessionState
    {
        return $this->owner->state(null, $this->name, $this->token);
    }

    /**
     * Waits while the lock is in doubt: as {@see Client::waitCertain()}.
     *
     * @param float $limit for how long, in seconds
     * @throws InvalidArgumentException for a number below zero, or NAN
     */
    public function waitCertain(float $limit): SessionState
    {
        return $this->owner->state($limit, $this->name, $this->token);
    }

    /**
     * Releases the lock. The server grants it to the next waiter at once.
     *
     * @return bool false: it was released before, or an earlier call has thrown that it was lost
     * @throws ConnectionLostException it was lost, perhaps long ago: others may have held it since
     * @throws DoubtException the session is in doubt. The lock is given up all the same: it is free
     *     when the session is resumed or lost
     * @throws NotHeldException it was lost although the connection is alive
     * @throws ForkedException the lock belongs to the parent process
     */
    public function release(): bool
    {
        return $this->owner->release($this->name, $this->token);
    }

    /**
     * Changes how many holders the lock allows, without releasing it in between; without `$shared`
     * and `$atMost` it becomes exclusive. If there are more holders than it is to allow, and a
     * `$timeout` is given, it waits, ahead of the queue, until enough of them have released it. To
     * allow more holders it does not wait. It is meant for limits; {@see makeExclusive()} and
     * {@see share()} do the rest.
     *
     * If a signal handler throws, the lock may have been converted all the same: {@see limit()}
     * tells.
     *
     * @param bool $shared held together with any number of others that share it. A number is
     *     refused: a limit is `$atMost`
     * @param ?float $timeout how long to wait, in seconds; 0.0: not at all; null: without limit
     * @param ?int $atMost held by at most so many, as for {@see Client::acquire()}
     * @return bool false: not converted within the time limit; it is held as before
     * @throws AlreadyHeldException it is being converted already
     * @throws DeadlockException two holders wait to make the same lock exclusive; it is held as
     *     before
     * @throws InvalidArgumentException
     * @throws NotHeldException it was released, or a release found that it was lost
     * @throws RefusedException it is held as before
     * @throws ConnectionLostException
     * @throws DoubtException the session is in doubt. If it is resumed, the lock is held as before,
     *     or, if it was to have more holders, as {@see limit()} then says
     */
    public function convert(bool|int|float $shared = false, ?float $timeout = 0.0, ?int $atMost = null): bool
    {
        $mode = Mode::of($shared, $atMost);
        $converted = function (Grant $grant) use ($mode): void {
            $this->token = $grant->token;
            $this->mode = $mode;
        };
        return $this->owner->convert($this->name, $this->token, $this->mode, $mode, $timeout, $converted);
    }

    /**
     * Makes the lock exclusive, without releasing it in between. If there are other holders, and a
     * `$timeout` is given, it waits for them, ahead of the queue. The lock then has a new token,
     * unless it was exclusive before.
     *
     * @param ?float $timeout how long to wait, in seconds; 0.0: not at all; null: without limit
     * @return bool false: others hold it too; this lock is held as before
     * @throws LockdException as for {@see convert()}
     */
    #[\NoDiscard('as it tells whether the lock is exclusive now')]
    public function makeExclusive(?float $timeout = 0.0): bool
    {
        return $this->convert(false, $timeout);
    }

    /**
     * Lets any number of others share the lock from now on, without releasing it in between. This
     * never waits. When it returns, the lock is shared; it has no other result.
     *
     * @throws LockdException as for {@see convert()}
     */
    public function share(): void
    {
        // Without a time limit there is no result but true.
        $this->convert(true, null);
    }

    /**
     * Whether it was not released since it was granted, even if the connection is lost meanwhile.
     *
     * @internal
     */
    public function isGranted(): bool
    {
        return $this->owner->hasGrant($this->name, $this->token);
    }

    /**
     * Whether it has ended otherwise than by its release, as far as is known without asking the
     * server: its client was closed, or a release has found that it was lost.
     *
     * @internal
     */
    public function hasFailed(): bool
    {
        return $this->owner->hasLost($this->name, $this->token);
    }

    /**
     * Lets the programs that this process starts hold the lock too. When this process ends, or this
     * object is destroyed, the lock is not released: it is free when all of them have ended. Only
     * for a lock with a connection of its own, as {@see Client::connectAndAcquire()} makes it:
     * everything on the connection is kept in this way.
     *
     * @internal
     * @throws RefusedException programs do not inherit the connection
     */
    public function keepForChildren(): void
    {
        $this->owner->keepForChildren();
        $this->isForChildren = true;
    }

    /**
     * Ends this process's part in a lock that is kept for children.
     *
     * @internal
     */
    public function leaveToChildren(): void
    {
        $this->owner->leaveToChildren();
    }

    public function __destruct()
    {
        if ($this->isForChildren) {
            $this->leaveToChildren();
        } elseif ($this->owner->isOurs()) {
            try {
                $this->release();
            } catch (LockdException) {
                // A destructor has no caller to tell, and a lost lock need not be freed.
            }
        }
    }

    /** @return array<mixed> */
    public function __serialize(): array
    {
        throw new InvalidArgumentException('a lock belongs to its process: it cannot be serialized');
    }

    /** @param array<mixed> $data */
    public function __unserialize(array $data): void
    {
        throw new InvalidArgumentException('a lock cannot be unserialized');
    }

    private function __clone()
    {
    }
}
