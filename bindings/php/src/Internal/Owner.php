<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\NotHeldException;
use Lockd\Exception\RefusedException;
use Lockd\Lock;
use Lockd\SessionState;
use Lockd\Transport\Grant;
use Lockd\Transport\Transport;

/**
 * One owner of locks and what it holds. It is shared by a client and its locks, and lives as long
 * as any of them. It does what is the same for every transport: it checks names, refuses a second
 * lock of a name that is held, refuses use in a forked child, and defers signal handlers.
 *
 * @internal
 */
final class Owner
{
    private readonly int $pid;
    /** @var array<array-key, int> fencing token by name; 0: this owner waits for it */
    private array $held = [];
    /**
     * @var array<array-key, int> fencing token by name, of locks whose release has failed, or that
     *     were held when this owner was closed
     */
    private array $lost = [];
    /** @var array<array-key, true> names that are being converted */
    private array $converting = [];
    /** Whether a call has thrown a ConnectionLostException. */
    private bool $hasReportedLoss = false;

    /**
     * @param bool $endsWithLock whether the session was opened for one lock, and ends when that is
     *     released
     */
    public function __construct(private readonly Transport $transport, private readonly bool $endsWithLock = false)
    {
        $this->pid = Process::id();
    }

    /**
     * Checks the name of an owner, and returns it.
     *
     * @throws InvalidArgumentException
     */
    public static function label(?string $owner): ?string
    {
        if ($owner !== null && (str_contains($owner, "\0") || preg_match('//u', $owner) !== 1)) {
            throw new InvalidArgumentException('the name of an owner must be UTF-8 text without zero bytes');
        }
        return $owner;
    }

    /** @throws InvalidArgumentException */
    public static function checkName(string $name): void
    {
        if (str_contains($name, "\0")) {
            throw new InvalidArgumentException('a name must not contain a zero byte: in C it would end the name');
        }
    }

    public function acquire(string $name, Mode $mode, ?float $timeout): ?Lock
    {
        $deadline = Deadline::in($timeout);
        return $this->withTransport($name, function () use ($name, $mode, $deadline): ?Lock {
            if (isset($this->held[$name])) {
                // If the connection is lost, the lock is lost too: then this throws
                // ConnectionLostException.
                $limit = $this->transport->inspect($name)->limit;
                $what = $this->held[$name] === 0 ? 'waits for' : 'holds';
                $advice = $this->held[$name] === 0 ? '' : self::adviceForHolder($limit === 1, $mode);
                throw new AlreadyHeldException("this client already $what \"$name\": a client is one owner$advice");
            }
            $this->held[$name] = 0;
            try {
                $grant = $this->transport->acquire($name, $mode, $deadline);
            } finally {
                unset($this->held[$name]);
            }
            if ($grant === null) {
                return null;
            }
            $this->held[$name] = $grant->token;
            return new Lock($this, $name, $mode, $grant);
        });
    }

    /** What a client can do that holds a lock and wants another slot of it, or another limit. */
    private static function adviceForHolder(bool $isExclusive, Mode $wanted): string
    {
        return match (true) {
            $isExclusive && $wanted->isExclusive() => '',
            // A second client would wait for the first one.
            $isExclusive, $wanted->isExclusive() => '; convert() changes how many may hold it',
            default => '; convert() changes how many may hold it, and a further slot needs a second client',
        };
    }

    /**
     * @param callable(Grant): void $converted is called with the grant before a signal handler can
     *     run
     * @return bool false: not granted within the time limit
     */
    public function convert(
        string $name,
        int $token,
        Mode $from,
        Mode $to,
        ?float $timeout,
        callable $converted,
    ): bool {
        $deadline = Deadline::in($timeout);
        return $this->withTransport($name, function () use ($name, $token, $from, $to, $deadline, $converted): bool {
            if (!$this->hasGrant($name, $token)) {
                $how = $this->hasLost($name, $token) ? 'was lost' : 'has been released';
                throw new NotHeldException("\"$name\" $how");
            }
            $this->refuseWhileConverting($name);
            $this->converting[$name] = true;
            try {
                $grant = $this->transport->convert($name, $from, $to, $deadline);
                if ($grant !== null) {
                    $this->held[$name] = $grant->token;
                    $converted($grant);
                }
                return $grant !== null;
            } catch (DoubtException $e) {
                if ($e->wasUnderWay && $to->allowsAsManyAs($from)) {
                    // The lock may have more holders already.
                    $converted(new Grant($token, null));
                }
                throw $e;
            } finally {
                unset($this->converting[$name]);
            }
        });
    }

    /** @return bool false: it was released before */
    public function release(string $name, int $token): bool
    {
        return $this->withTransport($name, function () use ($name, $token): bool {
            if (!$this->hasGrant($name, $token)) {
                return false;
            }
            $this->refuseWhileConverting($name);
            // Whether or not the request succeeds, this owner must not count the lock as held any
            // more.
            unset($this->held[$name]);
            $this->lost[$name] = $token;
            try {
                if (!$this->transport->release($name)) {
                    throw new NotHeldException("\"$name\" was already lost when it was to be released");
                }
                unset($this->lost[$name]);
                return true;
            } finally {
                if ($this->endsWithLock) {
                    $this->transport->close();
                }
            }
        });
    }

    /** A signal handler that runs during a conversion may try to change the same lock. */
    private function refuseWhileConverting(string $name): void
    {
        if (isset($this->converting[$name])) {
            throw new AlreadyHeldException("this client is converting \"$name\"");
        }
    }

    public function holds(string $name, int $token): bool
    {
        return $this->isOurs() && $this->withTransport($name, fn (): bool =>
            $this->hasGrant($name, $token) && $this->transport->holds($name));
    }

    /**
     * @template T
     * @param callable(Transport): T $body
     * @return T
     */
    public function withTransport(string $name, callable $body): mixed
    {
        if (!$this->isOurs()) {
            throw new ForkedException('this client is the parent process\'s: a forked child must connect by itself');
        }
        self::checkName($name);
        try {
            return Signals::deferred(fn (): mixed => $body($this->transport));
        } catch (ConnectionLostException $e) {
            $this->hasReportedLoss = true;
            throw $e;
        }
    }

    /**
     * Lets the programs that this process starts hold the locks too, and go on holding them when
     * this process ends or calls {@see leaveToChildren()}.
     *
     * @throws RefusedException programs do not inherit the connection
     */
    public function keepForChildren(): void
    {
        Signals::deferred(fn () => $this->transport->keepForChildren());
    }

    /**
     * Closes this process's part of a session that is kept for children. Nothing is released: the
     * locks are free when all programs have ended that have inherited the connection.
     */
    public function leaveToChildren(): void
    {
        $this->held = [];
        Signals::deferred(fn () => $this->transport->close());
    }

    /** Releases everything and ends the session. */
    public function close(): void
    {
        Signals::deferred(function (): void {
            foreach ($this->isOurs() ? array_keys(array_filter($this->held)) : [] as $name) {
                try {
                    $this->transport->release((string) $name);
                } catch (LockdException) {
                    // A lost lock need not be released. Locks on other servers still must be.
                }
            }
            $this->lost = array_filter($this->held) + $this->lost;
            $this->held = [];
            $this->transport->close();
        });
    }

    /**
     * Whether a new client may replace this one: no connection of it is alive, or it holds nothing
     * and the connection to one of its servers is lost. A server that was missing from the start
     * counts only after a call has needed it. Otherwise every call would connect anew, and wait
     * each time for as long as the missing server takes.
     */
    public function isSpent(): bool
    {
        return !$this->isOurs() || Signals::deferred(fn (): bool => $this->transport->hasEnded()
            || ($this->held === [] && ($this->hasReportedLoss || $this->transport->hasLostAServer())));
    }

    public function isOurs(): bool
    {
        return $this->pid === Process::id();
    }

    /**
     * What is known of the session, or of one lock. In a forked child it is lost.
     *
     * @param ?float $wait for how long this waits for certainty, in seconds; null: it does not
     * @param ?string $name of a lock; null: all that this owner holds or waits for
     * @param int $token that lock's
     */
    public function state(?float $wait, ?string $name = null, int $token = 0): SessionState
    {
        $deadline = $wait === null ? null : Deadline::in($wait);
        if (!$this->isOurs() || ($name !== null && !$this->hasGrant($name, $token))) {
            return SessionState::Lost;
        }
        // PHP has made integers of the names that are numbers.
        $text = static fn (int|string $name): string => (string) $name;
        $names = $name === null ? array_map($text, array_keys($this->held)) : [$name];
        $state = Signals::deferred(fn (): SessionState => $deadline === null
            ? $this->transport->state($names)
            : $this->transport->waitCertain($names, $deadline));
        // A signal handler may have released it meanwhile.
        return $name === null || $this->hasGrant($name, $token) ? $state : SessionState::Lost;
    }

    public function isResumable(): bool
    {
        return $this->transport->isResumable();
    }

    /**
     * Whether this owner holds the lock or waits for it, as far as is known without asking the
     * server.
     */
    public function isOwnerOf(string $name): bool
    {
        return isset($this->held[$name]);
    }

    /**
     * Whether the lock was granted and not released since, even if the connection is lost
     * meanwhile.
     */
    public function hasGrant(string $name, int $token): bool
    {
        return ($this->held[$name] ?? 0) === $token;
    }

    /** Whether the lock was lost: a release has found it so, or this owner was closed. */
    public function hasLost(string $name, int $token): bool
    {
        return ($this->lost[$name] ?? 0) === $token;
    }
}
