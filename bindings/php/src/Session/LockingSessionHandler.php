<?php

declare(strict_types=1);

namespace Lockd\Session;

use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Internal\ClientSource;
use Lockd\Internal\Deadline;
use Lockd\Internal\Signals;
use Lockd\Lock;
use SessionHandlerInterface;
use SessionIdInterface;
use SessionUpdateTimestampHandlerInterface;
use Throwable;

/**
 * Locks sessions for a handler that does not do so itself, wherever it keeps them: requests with the same session,
 * on whichever web servers, come one after the other, and none of them overwrites what another one has stored.
 *
 *     session_set_save_handler(new LockingSessionHandler($handler, 'tcp://127.0.0.1:20934'));
 *     session_start();
 *
 * A session is locked from when it is read, in session_start(), until it is closed: at the end of the script, in
 * session_write_close(), or at once with the option `read_and_close`. Others wait in the server's queue.
 *
 * A session is never read or written without its lock. If it is not to be had within the time limit, or there is no
 * server, session_start() fails with a warning that says so. If the lock was lost meanwhile, what is to be written is
 * refused with a warning, for it might overwrite what a later request has stored. To destroy a session, and to clear
 * old ones away, no lock is needed.
 *
 * A request whose session_start() has failed should say so to its client and not call it again: PHP has forgotten the
 * session's id by then, and would begin a new one.
 */
final class LockingSessionHandler implements
    SessionHandlerInterface,
    SessionIdInterface,
    SessionUpdateTimestampHandlerInterface
{
    private readonly ClientSource $source;
    private ?Lock $lock = null;

    /**
     * @param SessionHandlerInterface $handler where sessions are kept
     * @param Client|string $client a client; or an address for {@see Client::connect()}, which connects when the
     *     first session is read
     * @param float $timeout how long a session may be waited for, in seconds
     * @param string $prefix of the names of locks; what follows is the SHA-256 of the session's id, in hexadecimal:
     *     names of locks can be listed by everybody who uses the server, and who knows an id has the session
     * @throws InvalidArgumentException for an address or a time limit that makes no sense
     */
    public function __construct(
        private readonly SessionHandlerInterface $handler,
        Client|string $client,
        private readonly float $timeout = 30.0,
        private readonly string $prefix = 'session/',
    ) {
        Deadline::in($timeout);
        $this->source = new ClientSource($client);
    }

    public function open(string $path, string $name): bool
    {
        return $this->handler->open($path, $name);
    }

    public function read(string $id): string|false
    {
        return $this->orRelease(fn (): bool|string => $this->acquire($id) ? $this->handler->read($id) : false);
    }

    public function write(string $id, string $data): bool
    {
        return $this->orRelease(fn (): bool => $this->mayWrite($id) && $this->handler->write($id, $data));
    }

    public function updateTimestamp(string $id, string $data): bool
    {
        $handler = $this->handler;
        return $handler instanceof SessionUpdateTimestampHandlerInterface
            ? $this->orRelease(fn (): bool => $this->mayWrite($id) && $handler->updateTimestamp($id, $data))
            : $this->write($id, $data);
    }

    public function close(): bool
    {
        try {
            return $this->handler->close();
        } finally {
            $this->release();
        }
    }

    public function destroy(string $id): bool
    {
        return $this->orRelease(fn (): bool => $this->handler->destroy($id));
    }

    public function gc(int $max_lifetime): int|false
    {
        return $this->handler->gc($max_lifetime);
    }

    // phpcs:ignore PSR1.Methods.CamelCapsMethodName -- the name is PHP's.
    public function create_sid(): string
    {
        return $this->handler instanceof SessionIdInterface
            ? $this->handler->create_sid()
            : (string) session_create_id();
    }

    /**
     * Asked with `session.use_strict_mode`, where an id that is not known is replaced. A handler that cannot tell is
     * taken to know a session if it has data for it.
     */
    public function validateId(string $id): bool
    {
        return $this->handler instanceof SessionUpdateTimestampHandlerInterface
            ? $this->handler->validateId($id)
            : !in_array($this->handler->read($id), ['', false], true);
    }

    private function acquire(string $id): bool
    {
        if ($this->holds($id)) {
            // session_reset() reads once more what it has open.
            return true;
        }
        $this->release();
        try {
            // A handler that threw when the lock is got, but not kept yet, would leave it held for ever.
            Signals::deferred(function () use ($id): void {
                $this->lock = $this->source->client()->acquire($this->nameOf($id), $this->timeout);
            });
        } catch (LockdException $e) {
            return self::warn("the session cannot be locked: {$e->getMessage()}");
        }
        return $this->lock !== null
            || self::warn("the session was in use by others for longer than $this->timeout s");
    }

    /**
     * PHP does not close a session when something is thrown here.
     *
     * @template T
     * @param callable(): T $body
     * @return T
     */
    private function orRelease(callable $body): mixed
    {
        try {
            return $body();
        } catch (Throwable $e) {
            $this->release();
            throw $e;
        }
    }

    private function mayWrite(string $id): bool
    {
        return $this->holds($id) || self::warn('the session is not written, since its lock was lost meanwhile');
    }

    /** Whether this session is locked now: asks the server. */
    private function holds(string $id): bool
    {
        return $this->lock !== null && $this->lock->name() === $this->nameOf($id) && $this->lock->isHeld();
    }

    private function release(): void
    {
        // When it goes, it is released. If it was lost, that was said when the session was to be written.
        $this->lock = null;
    }

    private function nameOf(string $id): string
    {
        return $this->prefix . hash('sha256', $id);
    }

    private static function warn(string $text): bool
    {
        trigger_error("lockd: $text", E_USER_WARNING);
        return false;
    }
}
