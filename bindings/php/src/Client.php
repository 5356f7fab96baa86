<?php

declare(strict_types=1);

namespace Lockd;

use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LibraryException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Exception\TimeoutException;
use Lockd\Internal\Body;
use Lockd\Internal\Owner;
use Lockd\Internal\Process;
use Lockd\Internal\Signals;
use Lockd\Transport\FfiTransport;
use Lockd\Transport\StreamTransport;
use Lockd\Transport\Transport;

/**
 * One owner of locks: a connection to a lockd. Parts of a program that must exclude each other have a client each.
 *
 * That a lock is busy is a return value. That the server is gone is an exception, and with the connection all locks
 * are gone; nothing reconnects by itself, since only the caller can know what that means. Times are in seconds.
 *
 *     $client = Client::connect('tcp://127.0.0.1:20934');
 *     $lock = $client->acquire('nightly-report', 10.0);
 *     if ($lock !== null) {
 *         // Nobody else is at it.
 *         $lock->release();
 *     }
 */
final class Client
{
    public const VERSION = '0.1.0';

    private readonly Owner $owner;

    private function __construct(Transport $transport)
    {
        $this->owner = new Owner($transport);
    }

    /**
     * Connects with PHP's own streams, which end with their script however that ends.
     *
     * A server that asks for a secret is shown the one in the file that stands behind the address, as in
     * `tcp://HOST:PORT?auth-token-file=/etc/lockd/secret`, or else in the file that LOCKD_AUTH_TOKEN_FILE in the
     * environment names.
     *
     * @param string $url `tcp://HOST:PORT` or `unix:/PATH`; several, separated by commas, spread the names over those
     *     servers, alike in every client that is given the same addresses. One that answers is enough: whatever is
     *     asked of a name of another one is a {@see ConnectionLostException}
     * @param ?string $owner what this client is called in listings
     * @param float $timeout for connecting, and from then on for every answer that the server gives at once
     * @throws ConnectException
     * @throws InvalidArgumentException for an address that makes no sense
     */
    public static function connect(string $url, ?string $owner = null, float $timeout = 5.0): self
    {
        return new self(StreamTransport::connect($url, Owner::label($owner), $timeout));
    }

    /**
     * Connects by way of liblockd. Needs PHP's FFI, which web servers have only where it was set up for.
     *
     * @param string $url as for {@see connect()}, and `tls://HOST:PORT` with `?ca=FILE&cert=FILE&key=FILE`, as
     *     lock_connect of the C API has them
     * @param float $timeout for connecting
     * @throws ConnectException
     * @throws InvalidArgumentException for an address that makes no sense
     * @throws LibraryException
     */
    public static function connectByFfi(string $url, ?string $owner = null, float $timeout = 5.0): self
    {
        return new self(FfiTransport::connect($url, Owner::label($owner), $timeout));
    }

    /**
     * Opens a session in this process, without any server.
     *
     * **It excludes the sessions of this process alone**: not other processes, and so not the workers of a web server
     * from each other, of which each has locks of its own.
     *
     * @throws LibraryException
     */
    public static function embedded(?string $owner = null): self
    {
        return new self(FfiTransport::embedded(Owner::label($owner)));
    }

    /**
     * Acquires a lock, waiting its turn: first come, first served.
     *
     * @param string $name up to 1024 bytes, none of them zero
     * @param ?float $timeout how long to wait; null: without limit; 0.0: not at all
     * @param bool $shared held together with others that share it
     * @return ?Lock null: it was not to be had within the time limit. Keep it: when it goes, the lock is released
     * @throws AlreadyHeldException this client holds it already, or waits for it
     * @throws DeadlockException to wait would be one
     * @throws RefusedException by a limit of the server, or since it is stopping
     * @throws ConnectionLostException
     * @throws ForkedException this client is the parent process'
     * @throws InvalidArgumentException
     */
    public function acquire(string $name, ?float $timeout = null, bool $shared = false): ?Lock
    {
        return $this->owner->acquire($name, $shared, $timeout);
    }

    /**
     * Calls `$body` while holding a lock, and returns what that returns.
     *
     * What runs later runs without the lock. So a generator function is not called at all, and a result that is known
     * to be lazy (a generator, a fiber that has not ended, a promise that is not settled) is an exception, after the
     * lock has been released. A closure, an iterator or a collection as a result may be lazy, too, but is mostly just
     * a value, and is returned.
     *
     * @template T
     * @param callable(Lock): T $body
     * @return T
     * @throws InvalidArgumentException the body does not run, or not to its end, while it is called
     * @throws TimeoutException the lock was not to be had, and the body has not been called
     * @throws ConnectionLostException also if the lock was lost while the body was at work
     * @throws LockdException as for {@see acquire()}
     */
    public function synchronized(string $name, callable $body, ?float $timeout = null, bool $shared = false): mixed
    {
        Body::mustRunWhenCalled($body);
        $lock = null;
        // Kept before a signal's handler can run and throw: PHP may lose what a function returns just then.
        Signals::deferred(function () use (&$lock, $name, $timeout, $shared): void {
            $lock = $this->acquire($name, $timeout, $shared);
        });
        if ($lock === null) {
            throw new TimeoutException("\"$name\" was not to be had within $timeout s");
        }
        if (!$this->owner->remembers($name, $lock->token())) {
            throw new ConnectionLostException("this client was closed when it had just acquired \"$name\"");
        }
        try {
            $result = $body($lock);
        } catch (\Throwable $e) {
            // Not left to the lock's destructor: the exception may have a copy of the lock among its arguments.
            try {
                $lock->release();
            } catch (LockdException) {
                // What the caller has to hear of is why the body has failed.
            }
            throw $e;
        }
        $lock->release();
        Body::mustBeDone($result);
        return $result;
    }

    /**
     * A lock as it stands now.
     *
     * @throws LockdException
     */
    public function inspect(string $name): Inspection
    {
        return $this->owner->at($name, fn (Transport $transport): Inspection => $transport->inspect($name));
    }

    /**
     * The locks whose names begin with `$prefix`, that are held or waited for, in the order of their names. It is
     * fetched as it is read, and is no snapshot.
     *
     * @return iterable<ListedLock>
     * @throws LockdException
     */
    public function list(string $prefix = ''): iterable
    {
        return $this->owner->at($prefix, fn (Transport $transport): iterable => $transport->list($prefix));
    }

    /**
     * Whether the session stands, as far as can be known without asking the server. With several servers: whether every
     * one is there that a lock of this client belongs to, or one that it waits for, and at least one is.
     */
    public function stands(): bool
    {
        return $this->owner->stands();
    }

    /**
     * Whether another client may take its place: nothing of it stands any more, or not all of it, and it holds
     * nothing.
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
     * For a forked child that lives on: closes its copies of its parent's connections, which would keep the parent's
     * locks alive for as long as the child lives. The parent keeps them. Opening a client of its own does it, too.
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
        throw new InvalidArgumentException('a client cannot be made of text');
    }

    private function __clone()
    {
    }
}
