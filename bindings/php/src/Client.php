<?php

declare(strict_types=1);

namespace Lockd;

use Closure;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LibraryException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Exception\TimeoutException;
use Lockd\Internal\Body;
use Lockd\Internal\Deadline;
use Lockd\Internal\LockedCall;
use Lockd\Internal\Mode;
use Lockd\Internal\Owner;
use Lockd\Internal\PatientAcquire;
use Lockd\Internal\Process;
use Lockd\Internal\Requirements;
use Lockd\Internal\Signals;
use Lockd\Internal\Unkept;
use Lockd\Message\Address;
use Lockd\Transport\FfiTransport;
use Lockd\Transport\StreamTransport;
use Lockd\Transport\Transport;

/**
 * One owner of locks: a connection to a lockd. Parts of a program that must exclude each other need
 * a client each.
 *
 * If a lock is busy, the return value says so. If the server is gone, an exception says so, and all
 * locks of the connection are lost. Nothing reconnects by itself, because only the caller can know
 * what the loss means for its work, unless the caller has asked for a session that resumes
 * (`?resume` after the address). Times are in seconds.
 *
 *     $client = Client::connect('tcp://127.0.0.1:20934');
 *     $lock = $client->acquire('nightly-report', 10.0);
 *     if ($lock !== null) {
 *         // No other process holds the lock.
 *         $lock->release();
 *     }
 */
final class Client
{
    public const VERSION = '0.1.0';

    /** What PHP 8.5 and later say of a statement that is only a call of acquire(). */
    private const NOT_KEPT = 'as the lock is released when its object is destroyed: keep it in a variable';

    private readonly Owner $owner;

    private function __construct(Transport $transport)
    {
        $this->owner = new Owner($transport);
    }

    /**
     * Signal handlers wait until the client exists, which then closes the connection if one throws.
     *
     * @param Closure(): Transport $open
     */
    private static function over(Closure $open): self
    {
        $client = null;
        Signals::deferred(static function () use (&$client, $open): void {
            $client = new self($open());
        });
        assert($client instanceof self);
        return $client;
    }

    /**
     * Connects with PHP's own streams, which PHP closes when the script ends, however it ends.
     *
     * If the server requires a secret, it is read from the file named after the address, as in
     * `tcp://HOST:PORT?auth-token-file=/etc/lockd/secret`, or else from the file that the
     * environment variable LOCKD_AUTH_TOKEN_FILE names.
     *
     * @param string $url `tcp://HOST:PORT` or `unix:/PATH`. The servers of one cluster are one
     *     server at several places, of which the active one is used: `tcp://HOST:PORT,HOST:PORT`.
     *     Several addresses, each with its scheme, separated by commas, spread the names over those
     *     servers, in the same way in every client that is given the same addresses. One server that
     *     answers is enough: calls with names of the others throw a {@see ConnectionLostException}
     * @param ?string $owner what this client is called in listings
     * @param float $timeout for connecting, and from then on for every answer that the server gives
     *     at once
     * @param ?bool $resume whether the session resumes when its connection or its server fails: see
     *     {@see DoubtException} and {@see isResumable()}. Null: if the address says so, as in
     *     `tcp://HOST:PORT?resume`
     * @throws ConnectException
     * @throws InvalidArgumentException for an address that is not valid
     */
    public static function connect(
        string $url,
        ?string $owner = null,
        float $timeout = 5.0,
        ?bool $resume = null,
    ): self {
        Requirements::forStreams();
        return self::over(static fn (): Transport =>
            StreamTransport::connect(Address::withResume($url, $resume), Owner::label($owner), $timeout));
    }

    /**
     * Connects through liblockd. Needs PHP's FFI, which a web server has only for preloaded files
     * (`preload.php`).
     *
     * @param string $url as for {@see connect()}, and also `tls://HOST:PORT`, with
     *     `?ca=FILE&cert=FILE&key=FILE` as for lock_connect of the C API
     * @param float $timeout for connecting only. An answer of a server that hangs is waited for
     *     until the server's dead-peer timeout is over, 25 seconds unless it was told another
     * @param ?bool $resume as for {@see connect()}
     * @throws ConnectException
     * @throws InvalidArgumentException for an address that is not valid
     * @throws LibraryException
     */
    public static function connectByFfi(
        string $url,
        ?string $owner = null,
        float $timeout = 5.0,
        ?bool $resume = null,
    ): self {
        Requirements::forLibrary();
        return self::over(static fn (): Transport =>
            FfiTransport::connect(Address::withResume($url, $resume), Owner::label($owner), $timeout));
    }

    /**
     * Connects and acquires a lock, in one call that waits for the server too: if it is not up yet,
     * restarts or crashes, or if the network fails. Then it connects again, after random pauses of
     * up to 4 s, and waits at the end of the queue. For workers, commands and cron jobs.
     *
     * The lock has a connection of its own, which ends when the lock is released. It is a lock like
     * any other: once it is granted, nothing reconnects, unless its session resumes.
     *
     *     $lock = Client::connectAndAcquire('tcp://127.0.0.1:20934', 'nightly-report', 3600.0);
     *
     * **Without a `$timeout` and an `$onWait` a mistake may look like an endless wait**: at a port
     * where nothing listens, at a mistyped path of a socket and at a service that stays silent there
     * may be a server later. What cannot be one is thrown at once: an address that is not valid, an
     * unknown host, a port where another protocol answers, a wrong secret, a limit of the server.
     * Signal handlers run while it waits and pauses, but
     * not during an attempt to connect; one that throws ends the wait.
     *
     * @param string $url as for {@see connect()}. Of several servers, only the one that the name
     *     belongs to is asked and waited for
     * @param ?float $timeout for everything; null: as long as it takes; 0.0: one attempt
     * @param ?string $owner what the connection is called in listings
     * @param float $connectTimeout for each attempt to connect, and, once connected, for every
     *     answer that the server gives at once
     * @param ?callable(WaitEvent, ?string): mixed $onWait is told what happens, and the reason: see
     *     {@see WaitEvent}. If it throws, the wait ends
     * @param bool $shared as for {@see acquire()}
     * @param ?int $atMost as for {@see acquire()}
     * @param ?bool $resume as for {@see connect()}, from the grant on
     * @return ?Lock null: held by others until the time was over
     * @throws ConnectException a mistake; or there was no server when the time was over
     * @throws ConnectionLostException the connection was lost, and the time was over before there
     *     was another
     * @throws LockdException as for {@see acquire()}
     */
    #[\NoDiscard(self::NOT_KEPT)]
    public static function connectAndAcquire(
        string $url,
        string $name,
        ?float $timeout = null,
        bool|int|float $shared = false,
        ?string $owner = null,
        float $connectTimeout = 5.0,
        ?callable $onWait = null,
        ?int $atMost = null,
        ?bool $resume = null,
    ): ?Lock {
        Requirements::forStreams();
        $mode = Mode::of($shared, $atMost);
        $owner = Owner::label($owner);
        $url = Signals::deferred(static fn (): string => Address::withResume($url, $resume));
        $open = static fn (Address $server, float $within): Transport =>
            StreamTransport::connectToOne($server, $owner, $within, $connectTimeout);
        $onWait = $onWait === null ? null : $onWait(...);
        $lock = (new PatientAcquire($open, $connectTimeout, $onWait))->acquire($url, $name, $mode, $timeout);
        assert($lock === null || Unkept::report($name));
        return $lock;
    }

    /**
     * As {@see connectAndAcquire()}, through liblockd, with the addresses of
     * {@see connectByFfi()}. `$connectTimeout` is only for connecting, as `$timeout` there.
     *
     * @param bool $shared as for {@see acquire()}
     * @param ?callable(WaitEvent, ?string): mixed $onWait
     * @param ?bool $resume as for {@see connect()}
     * @throws LockdException
     */
    #[\NoDiscard(self::NOT_KEPT)]
    public static function connectAndAcquireByFfi(
        string $url,
        string $name,
        ?float $timeout = null,
        bool|int|float $shared = false,
        ?string $owner = null,
        float $connectTimeout = 5.0,
        ?callable $onWait = null,
        ?int $atMost = null,
        ?bool $resume = null,
    ): ?Lock {
        Requirements::forLibrary();
        $mode = Mode::of($shared, $atMost);
        $owner = Owner::label($owner);
        $url = Signals::deferred(static fn (): string => Address::withResume($url, $resume));
        $open = static fn (Address $server, float $within): Transport =>
            FfiTransport::connectToOne($server, $owner, $within);
        $onWait = $onWait === null ? null : $onWait(...);
        $lock = (new PatientAcquire($open, $connectTimeout, $onWait))->acquire($url, $name, $mode, $timeout);
        assert($lock === null || Unkept::report($name));
        return $lock;
    }

    /**
     * Opens a session in this process, without any server.
     *
     * **It excludes only the sessions of this process from each other.** Other processes, such as
     * the other workers of a web server, have brokers of their own.
     *
     * @throws ConnectException a function of PHP is disabled that is needed
     * @throws LibraryException
     */
    public static function embedded(?string $owner = null): self
    {
        Requirements::forLibrary();
        return new self(FfiTransport::embedded(Owner::label($owner)));
    }

    /**
     * Acquires a lock if it is free; with a `$timeout` it waits its turn: first come, first served.
     * Without `$shared` and `$atMost` it is exclusive: it has one holder.
     *
     * **Keep the object that this returns in a variable**: the lock is released when the object is
     * destroyed. In `if ($client->acquire('x')) { … }` that is so before the first line of the
     * block. Where PHP's assertions are on, a call whose result is not kept raises a warning.
     *
     * With `$atMost` there are never more holders than that, of any kind, while this client holds
     * the lock. So programs that give different limits need no agreement: the smallest limit among
     * the holders is in force.
     *
     * @param string $name up to 1024 bytes, none of them zero. The empty name is one like any other
     * @param ?float $timeout how long to wait; 0.0: not at all; null: without limit, which is too
     *     long for a web request
     * @param bool $shared held together with any number of others that share it. A number is
     *     refused: a limit is `$atMost`
     * @param ?int $atMost held by at most so many, this client included: 1 (the same as exclusive)
     *     to 16,777,215
     * @return ?Lock null: not granted within the time limit
     * @throws AlreadyHeldException this client already holds the lock or waits for it.
     *     {@see Lock::convert()} changes its limit; a further slot needs a second client
     * @throws DeadlockException waiting would close a cycle of clients that wait for each other
     * @throws RefusedException a limit of the server, or it is stopping, or it grants nothing yet,
     *     or it is older than `$atMost`
     * @throws ConnectionLostException
     * @throws DoubtException the session is in doubt, and was not resumed within the time limit
     * @throws ForkedException this client is the parent process'
     * @throws InvalidArgumentException
     */
    #[\NoDiscard(self::NOT_KEPT)]
    public function acquire(
        string $name,
        ?float $timeout = 0.0,
        bool|int|float $shared = false,
        ?int $atMost = null,
    ): ?Lock {
        $lock = $this->owner->acquire($name, Mode::of($shared, $atMost), $timeout);
        // Where assertions are off, as in production, PHP does not evaluate this.
        assert($lock === null || Unkept::report($name));
        return $lock;
    }

    /**
     * Calls `$body` while holding a lock, and returns what that returns.
     *
     * Code that runs after `$body` has returned runs without the lock. So a generator function is
     * not called at all, and a result that is known to be lazy (a generator, a fiber that has not
     * ended, a promise that is not settled) is an exception, thrown after the lock has been
     * released. A closure, an iterator or a collection may be lazy too, but is mostly just a value,
     * and is returned.
     *
     * @template T
     * @param callable(Lock): T $body
     * @param ?float $timeout how long to wait for the lock; 0.0: not at all; null: without limit
     * @param bool $shared as for {@see acquire()}
     * @return T
     * @throws InvalidArgumentException `$body` is a generator function, or its result is not
     *     finished when it returns
     * @throws TimeoutException the lock was not granted in time; `$body` was not called
     * @throws ConnectionLostException also if the lock was lost, or this client closed, while
     *     `$body` ran
     * @throws LockdException as for {@see acquire()}
     */
    public function synchronized(
        string $name,
        callable $body,
        ?float $timeout = 10.0,
        bool|int|float $shared = false,
        ?int $atMost = null,
    ): mixed {
        Body::mustRunWhenCalled($body);
        return LockedCall::run(
            fn (): ?Lock => $this->owner->acquire($name, Mode::of($shared, $atMost), $timeout),
            $body,
            static function () use ($name, $timeout): never {
                $limit = Deadline::text($timeout ?? INF);
                throw new TimeoutException("\"$name\" was not granted within $limit s");
            },
        );
    }

    /**
     * The present state of a lock: its mode and limit, and how many sessions hold it and wait for
     * it.
     *
     * @throws LockdException
     */
    public function inspect(string $name): Inspection
    {
        return $this->owner->withTransport($name, fn (Transport $transport): Inspection => $transport->inspect($name));
    }

    /**
     * The locks whose names begin with `$prefix` and that are held or waited for, in the order of
     * their names. The list is fetched while it is iterated, so it is not a snapshot.
     *
     * @return iterable<ListedLock>
     * @throws LockdException
     */
    public function list(string $prefix = ''): iterable
    {
        return $this->owner->withTransport($prefix, fn (Transport $transport): iterable => $transport->list($prefix));
    }

    /**
     * Whether the session is alive, as far as this can be known without asking the server. With
     * several servers: whether at least one is connected, and so is each one that has a lock which
     * this client holds or waits for. False in doubt.
     */
    public function stands(): bool
    {
        return $this->state() === SessionState::Alive;
    }

    /**
     * What is known of the session, as for {@see stands()}. It never waits: in doubt it goes one
     * step on, and while a lock is held it sends the server a ping now and then, without waiting for
     * the answer. So a program whose session is to survive a restart of the server calls this, or
     * {@see Lock::isHeld()}, every few seconds while it works.
     */
    public function state(): SessionState
    {
        return $this->owner->state(null);
    }

    /**
     * Waits while the session is in doubt, until it is resumed or lost. Signal handlers run
     * meanwhile.
     *
     * @param float $limit for how long, in seconds. After 16.5 seconds (with the server's default
     *     dead-peer timeout) it is certain for a client that holds a lock
     * @return SessionState `InDoubt` only if the limit was too short
     * @throws InvalidArgumentException for a number below zero, or NAN
     */
    public function waitCertain(float $limit): SessionState
    {
        return $this->owner->state($limit);
    }

    /**
     * Whether the session can resume: it was asked for, and the server offers it, which takes a
     * server with a state directory. With several servers: whether that is so on all of them.
     */
    public function isResumable(): bool
    {
        return $this->owner->isResumable();
    }

    /**
     * Whether this client holds the lock or waits for it, as far as is known without asking the
     * server.
     *
     * @internal
     */
    public function isOwnerOf(string $name): bool
    {
        return $this->owner->isOwnerOf($name);
    }

    /**
     * Whether a new client may replace this one: no connection of it is alive, or it holds nothing
     * and the connection to one of its servers is lost.
     *
     * @internal
     */
    public function isSpent(): bool
    {
        return $this->owner->isSpent();
    }

    /** Releases every lock of this client and ends its session. */
    public function close(): void
    {
        $this->owner->close();
    }

    /**
     * For a forked child that outlives its parent: closes the child's copies of the parent's
     * connections, which would keep the parent's locks alive after the parent's death. The parent's
     * own connections are not affected. Opening a client in the child does this too.
     */
    public static function closeInherited(): void
    {
        Process::closeInherited();
    }

    /** @return array<mixed> */
    public function __serialize(): array
    {
        throw new InvalidArgumentException('a client belongs to its process: it cannot be serialized');
    }

    /** @param array<mixed> $data */
    public function __unserialize(array $data): void
    {
        throw new InvalidArgumentException('a client cannot be unserialized');
    }

    private function __clone()
    {
    }
}
