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
use Lockd\SessionState;
use SessionHandlerInterface;
use SessionIdInterface;
use SessionUpdateTimestampHandlerInterface;
use Throwable;

/**
 * Locks sessions for a handler that does not lock them itself, wherever it keeps them. Requests
 * with the same session run one after the other, on any number of web servers, and none overwrites
 * what another has stored.
 *
 *     session_set_save_handler(new LockingSessionHandler($handler, 'tcp://127.0.0.1:20934'));
 *     session_start();
 *
 * A session is locked from session_start(), which reads it, until it is closed: at the end of the
 * script, in session_write_close(), or at once with the option `read_and_close`. Other requests
 * wait in the server's queue.
 *
 * A session is never read or written without its lock. If the lock is not granted within the time
 * limit, or there is no server, session_start() fails with a warning that says so. If the lock was
 * lost meanwhile, or is in doubt, the session is not written, with a warning, because the write might
 * overwrite what a later request has stored. Destroying a session and removing old sessions need no lock.
 *
 * If session_start() has failed, a request should answer with an error and not call it again: PHP
 * has forgotten the session's id by then, and would begin a new session.
 */
final class LockingSessionHandler implements
    SessionHandlerInterface,
    SessionIdInterface,
    SessionUpdateTimestampHandlerInterface
{
    /**
     * How long to wait while the lock is in doubt, in seconds: as long as a server may take to
     * answer.
     */
    private const DOUBT = 5.0;

    private readonly ClientSource $source;
    private ?Lock $lock = null;
    /** The session that could not be locked when its id was checked, and must not be read. */
    private ?string $refused = null;

    /**
     * @param SessionHandlerInterface $handler the handler that keeps the sessions
     * @param Client|string $client a client; or an address for {@see Client::connect()}, to which
     *     this connects when the first session is read
     * @param float $timeout how long to wait for a session's lock, in seconds
     * @param string $prefix prefix of the lock names. The SHA-256 of the session's id follows, in
     *     hexadecimal: every user of the server can list lock names, and a session's id gives
     *     access to the session
     * @throws InvalidArgumentException for an address or a time limit that is not valid
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
        if ($this->refused === $id) {
            $this->refused = null;
            return false;
        }
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
        return $this->orRelease(fn (): bool => $this->mayDestroy($id) && $this->handler->destroy($id));
    }

    public function gc(int $max_lifetime): int|false
    {
        return $this->handler->gc($max_lifetime);
    }

    // phpcs:ignore PSR1.Methods.CamelCapsMethodName -- the name is PHP's.
    public function create_sid(): string
    {
        return match (true) {
            $this->handler instanceof SessionIdInterface => $this->handler->create_sid(),
            function_exists('session_create_id') => (string) session_create_id(),
            default => bin2hex(random_bytes(32)),
        };
    }

    /**
     * PHP calls this with `session.use_strict_mode`, to replace an unknown id. If the handler
     * cannot tell, a session counts as known if there is data for it.
     */
    public function validateId(string $id): bool
    {
        // Some handlers, as Symfony's, keep what they read here and return it from the next read().
        // So the session is locked before its id is checked. PHP also checks new ids while a session
        // is open, which keeps its lock.
        if ($this->lock === null && !$this->acquire($id)) {
            // If this returned false, PHP would replace the id, and the user would lose the session.
            $this->refused = $id;
            return true;
        }
        return $this->orRelease(fn (): bool => $this->handler instanceof SessionUpdateTimestampHandlerInterface
            ? $this->handler->validateId($id)
            : !in_array($this->handler->read($id), ['', false], true));
    }

    private function acquire(string $id): bool
    {
        if ($this->holds($id)) {
            // session_reset() reads the open session again.
            return true;
        }
        $this->release();
        try {
            // If a signal handler threw after the grant but before the lock is stored, the lock
            // would stay held for ever.
            Signals::deferred(function () use ($id): void {
                $this->lock = $this->source->client()->acquire($this->nameOf($id), $this->timeout);
            });
        } catch (LockdException $e) {
            return self::warn("the session cannot be locked: {$e->getMessage()}");
        }
        return $this->lock !== null
            || self::warn('the session was in use by others for longer than ' . Deadline::text($this->timeout) . ' s');
    }

    /**
     * Releases the lock if the body throws, because PHP does not close the session then.
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
        return $this->holds($id) || $this->warnOfLoss('the session is not written');
    }

    /** A session that is not open here may be destroyed by anybody, as an administrator ends others'. */
    private function mayDestroy(string $id): bool
    {
        return $this->lock?->name() !== $this->nameOf($id)
            || $this->holds($id)
            || $this->warnOfLoss('the session is not destroyed');
    }

    private function warnOfLoss(string $what): bool
    {
        $isInDoubt = $this->lock?->state() === SessionState::InDoubt;
        return self::warn("$what, since its lock " . ($isInDoubt ? 'is in doubt' : 'was lost meanwhile'));
    }

    /** Whether the lock of this session is held now: asks the server. */
    private function holds(string $id): bool
    {
        return $this->lock !== null && $this->lock->name() === $this->nameOf($id)
            && $this->lock->isHeld(self::DOUBT);
    }

    private function release(): void
    {
        // Destroying the object releases the lock. If it was lost, the warning came when the
        // session was written.
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
