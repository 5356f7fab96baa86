<?php

declare(strict_types=1);

namespace Lockd\Transport;

use FFI;
use FFI\CData;
use Generator;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LibraryException;
use Lockd\Exception\NotHeldException;
use Lockd\Exception\RefusedException;
use Lockd\Exception\TimeoutException;
use Lockd\Ffi\Library;
use Lockd\Inspection;
use Lockd\Internal\Absence;
use Lockd\Internal\Deadline;
use Lockd\Internal\Endable;
use Lockd\Internal\Mode;
use Lockd\Internal\Process;
use Lockd\Internal\Signals;
use Lockd\ListedLock;
use Lockd\Message\Address;
use Lockd\Message\Result;
use Lockd\SessionState;
use Throwable;

/**
 * Locks through liblockd, on a server or in this process.
 *
 * PHP can neither interrupt a C function nor close what it opens. So waits are made in slices, and
 * {@see Process} and {@see Library} close what a script leaves open.
 *
 * @internal
 */
final class FfiTransport implements Transport, Endable
{
    /**
     * The longest time, in milliseconds, for which PHP's own time limit and its signal handlers are
     * delayed.
     */
    private const SLICE = 100;

    private const PAGE = 500;

    /** Null after the session is closed. */
    private ?CData $session;

    /** Why this object has ended the session; null: it has not. */
    private ?string $end = null;

    /**
     * @param ?string $server the address of the only server; null: there are several, or none
     * @param bool $beginsAnew whether the session may connect again by itself while it holds nothing
     */
    private function __construct(
        private readonly FFI $c,
        CData $session,
        private readonly ?string $server = null,
        private readonly bool $beginsAnew = true,
    ) {
        $this->session = $session;
        Process::opened($this);
    }

    /**
     * @throws ConnectException
     * @throws LibraryException
     */
    public static function connect(string $urls, ?string $owner, float $timeout): self
    {
        $servers = array_keys(Address::parseList($urls));
        return self::open($urls, isset($servers[1]) ? null : $servers[0], $owner, $timeout);
    }

    /**
     * Connects to this server only, for names that belong to it. On names of other servers nothing
     * must be asked here, because on this server those names are other locks. If it holds nothing,
     * it is lost when its connection ends.
     *
     * @throws ConnectException
     * @throws LibraryException
     */
    public static function connectToOne(Address $address, ?string $owner, float $within): self
    {
        return self::open($address->url, $address->text, $owner, $within, false);
    }

    private static function open(
        string $urls,
        ?string $server,
        ?string $owner,
        float $timeout,
        bool $beginsAnew = true,
    ): self {
        $c = Library::get();
        $session = $c->lock_connect($urls, $owner, self::milliseconds(Deadline::in($timeout)->remaining()));
        if ($session === null) {
            $detail = (string) $c->lock_last_error();
            throw new ConnectException($detail, isAbsence: Absence::isInText($detail));
        }
        return new self($c, $session, $server, $beginsAnew);
    }

    /** @throws LibraryException */
    public static function embedded(?string $owner): self
    {
        $c = Library::get();
        $session = $c->lock_open(null, $owner);
        return new self($c, $session ?? throw new ConnectException((string) $c->lock_last_error()));
    }

    public function acquire(string $name, Mode $mode, Deadline $deadline): ?Grant
    {
        $token = $this->c->new('uint64_t');
        $status = $this->again($deadline, fn (): int => $this->request($name, $mode, $deadline, $token));
        if ($status === $this->c->LOCK_DOUBT && !$this->beginsAnew) {
            throw new ConnectionLostException((string) $this->c->lock_last_error());
        }
        return match ($status) {
            $this->c->LOCK_OK => new Grant($token->cdata ?: $this->token($name), null),
            $this->c->LOCK_TIMEOUT => null,
            default => throw $this->failure($status, $name),
        };
    }

    /** Asks for a lock once: without waiting, and then, if that is not enough, in the queue. */
    private function request(string $name, Mode $mode, Deadline $deadline, CData $token): int
    {
        $number = $this->number($mode);
        // Nearly always the lock is free: then one call returns the grant and its token.
        do {
            $status = $this->c->lock_acquire($this->session, $name, $number, 0, FFI::addr($token));
        } while ($status === $this->c->LOCK_INTERRUPTED);
        // An attempt that does not wait may be refused where a request in the queue is granted in
        // its turn.
        if (in_array($status, [$this->c->LOCK_TIMEOUT, $this->c->LOCK_REFUSED], true) && !$deadline->isOver()) {
            $status = $this->c->lock_enqueue($this->session, $name, $number);
            $giveUp = fn () => $this->c->lock_release($this->session, $name);
            $status = $this->await($status, $name, $deadline, $giveUp, $token);
        }
        return $status;
    }

    /**
     * Asks, and again whenever the session is not in doubt any more, until the time limit is over.
     *
     * @param callable(): int $ask
     * @return int LOCK_DOUBT only if it is still in doubt then
     */
    private function again(Deadline $deadline, callable $ask): int
    {
        while (true) {
            $status = $ask();
            if ($status !== $this->c->LOCK_DOUBT || $deadline->isOver() || !$this->beginsAnew) {
                return $status;
            }
            $this->waitCertain([], $deadline);
        }
    }

    public function convert(string $name, Mode $from, Mode $to, Deadline $deadline): ?Grant
    {
        $enqueue = fn (): int => $this->c->lock_enqueue_convert($this->session, $name, $this->number($to));
        $widens = $to->allowsAsManyAs($from);
        $status = $widens ? $enqueue() : $this->again($deadline, $enqueue);
        if ($widens && $status === $this->c->LOCK_DOUBT) {
            // The library does not say whether the request was under way.
            throw new DoubtException((string) $this->c->lock_last_error(), wasUnderWay: true);
        }
        $giveUp = function () use ($name, $from): void {
            $this->c->lock_cancel($this->session);
            if ($this->c->lock_wait($this->session, $name, 0, null) === $this->c->LOCK_OK) {
                // The grant came before the cancel: convert back.
                $this->c->lock_convert($this->session, $name, $this->number($from), 0);
            }
        };
        $status = $this->await($status, $name, $deadline, $giveUp, $this->c->new('uint64_t'));
        return match ($status) {
            $this->c->LOCK_OK => new Grant($this->token($name), null),
            $this->c->LOCK_TIMEOUT => null,
            default => throw $this->failure($status, $name),
        };
    }

    /**
     * Waits for the grant of a request that is in the queue.
     *
     * @param callable(): mixed $giveUp withdraws the request, or undoes a grant that came
     *     meanwhile
     */
    private function await(int $status, string $name, Deadline $deadline, callable $giveUp, CData $token): int
    {
        if ($status === $this->c->LOCK_TIMEOUT) {
            // The server hangs: the request is in no queue.
            throw $this->failure($status, $name);
        }
        if ($status === $this->c->LOCK_DOUBT) {
            // So is this one.
            return $status;
        }
        $goOn = [$this->c->LOCK_PENDING, $this->c->LOCK_TIMEOUT, $this->c->LOCK_INTERRUPTED];
        if ($this->beginsAnew) {
            // The library queues again by itself.
            $goOn[] = $this->c->LOCK_DOUBT;
        }
        try {
            while (in_array($status, $goOn, true)) {
                Signals::dispatch();
                if ($deadline->isOver()) {
                    $giveUp();
                    return $status === $this->c->LOCK_DOUBT ? $status : $this->c->LOCK_TIMEOUT;
                }
                $slice = min(self::SLICE, self::milliseconds($deadline->remaining()));
                $status = $this->c->lock_wait($this->session, $name, $slice, FFI::addr($token));
            }
        } catch (Throwable $e) {
            // A signal handler has thrown: the caller will never learn of a grant.
            $giveUp();
            throw $e;
        }
        return $status;
    }

    public function release(string $name): bool
    {
        if ($this->session !== null && $this->isResumable()) {
            // If the connection has ended already, the release does not wait for what follows.
            $this->c->lock_check($this->session);
        }
        $status = $this->c->lock_release($this->session, $name);
        return match ($status) {
            $this->c->LOCK_OK => true,
            $this->c->LOCK_NOT_HELD => false,
            default => throw $this->failure($status, $name),
        };
    }

    public function holds(string $name): bool
    {
        try {
            return $this->look($name)->held;
        } catch (ConnectionLostException | DoubtException | RefusedException | TimeoutException) {
            return false;
        }
    }

    public function inspect(string $name): Inspection
    {
        $info = $this->look($name);
        if ($info->mode !== $this->c->LOCK_SHARED) {
            $isHeld = $info->holders > 0;
            $mode = $isHeld ? 'exclusive' : null;
            return new Inspection($mode, $info->holders, $info->waiters, $info->orphaned, $isHeld ? 1 : null);
        }
        // Only this call tells a limit. Since the first one the lock may have changed.
        $slots = $this->c->new('lock_slots');
        $status = $this->c->lock_inspect_slots($this->session, $name, FFI::addr($slots));
        if ($status !== $this->c->LOCK_OK) {
            throw $this->failure($status, $name);
        }
        $mode = $slots->limit === 1 ? 'exclusive' : 'shared';
        $mode = $slots->holders > 0 ? $mode : null;
        return new Inspection($mode, $slots->holders, $slots->waiters, $info->orphaned, $slots->limit ?: null);
    }

    public function list(string $prefix): Generator
    {
        $after = null;
        do {
            $page = $this->page($prefix, $after);
            $entries = $page->objects('locks');
            foreach ($entries as $entry) {
                $lock = ListedLock::fromMessage($entry);
                yield $lock;
                $after = $lock->name;
            }
        } while ($page->flag('more') && $entries !== []);
    }

    private function page(string $prefix, ?string $after): Result
    {
        return Signals::deferred(function () use ($prefix, $after): Result {
            $json = $this->c->new('char *');
            $status = $this->c->lock_list($this->session, $prefix, $after, self::PAGE, FFI::addr($json));
            if ($status !== $this->c->LOCK_OK) {
                throw $this->failure($status, $prefix);
            }
            try {
                return new Result((array) json_decode(FFI::string($json), true));
            } finally {
                $this->c->lock_list_free($json);
            }
        });
    }

    public function state(array $names): SessionState
    {
        // The library itself knows which servers the names belong to.
        return match ($this->session === null ? null : $this->c->lock_check($this->session)) {
            $this->c->LOCK_OK => SessionState::Alive,
            $this->c->LOCK_DOUBT => SessionState::InDoubt,
            default => SessionState::Lost,
        };
    }

    public function waitCertain(array $names, Deadline $deadline): SessionState
    {
        $state = $this->state($names);
        while ($state === SessionState::InDoubt && !$deadline->isOver()) {
            Signals::dispatch();
            // A handler may have closed it.
            if ($this->session !== null) {
                $slice = min(self::SLICE, self::milliseconds($deadline->remaining()));
                $this->c->lock_wait_certain($this->session, $slice);
            }
            $state = $this->state($names);
        }
        return $state;
    }

    public function isResumable(): bool
    {
        return $this->session !== null && $this->c->lock_resumable($this->session) === 1;
    }

    public function hasEnded(): bool
    {
        return $this->state([]) === SessionState::Lost;
    }

    public function hasLostAServer(): bool
    {
        return $this->state([]) !== SessionState::Alive;
    }

    public function keepForChildren(): void
    {
        throw new RefusedException('programs do not inherit the connections of liblockd');
    }

    public function close(): void
    {
        if ($this->session !== null) {
            // In a forked child this frees only the handle; the parent keeps its locks.
            $this->c->lock_close($this->session);
            $this->session = null;
            Process::closed($this);
        }
    }

    /** Called if the script has ended without closing the session: its locks become orphaned. */
    public function end(): void
    {
        if ($this->session !== null) {
            $this->c->lock_abandon($this->session);
        }
        $this->close();
    }

    public function abandon(): void
    {
        $this->close();
    }

    public function __destruct()
    {
        Signals::deferred(fn () => $this->close());
    }

    /** The token of a lock that this session holds; does not ask the server. */
    private function token(string $name): int
    {
        $token = $this->c->new('uint64_t');
        $status = $this->c->lock_token($this->session, $name, FFI::addr($token));
        return $status === $this->c->LOCK_OK ? $token->cdata : throw $this->failure($status, $name);
    }

    /** The result of lock_inspect. */
    private function look(string $name): CData
    {
        $info = $this->c->new('lock_info');
        $status = $this->c->lock_inspect($this->session, $name, FFI::addr($info));
        return $status === $this->c->LOCK_OK ? $info : throw $this->failure($status, $name);
    }

    /** The library's number for a mode. */
    private function number(Mode $mode): int
    {
        return match ($mode->holdersMax) {
            null => $this->c->LOCK_SHARED,
            1 => $this->c->LOCK_EXCLUSIVE,
            default => $this->c->lock_at_most($mode->holdersMax),
        };
    }

    /** Rounded up, so that time which is left does not become 0. */
    private static function milliseconds(float $seconds): int
    {
        return (int) ceil(min($seconds * 1000, 1e15));
    }

    /** The cause of a refusal, which the library tells only by its text. */
    private static function cause(string $text): ?string
    {
        return match (true) {
            preg_match('/(?:the server is stopping|the broker has failed)$/D', $text) === 1 => 'stopping',
            str_contains($text, 'it grants nothing for another ') => 'grace',
            default => null,
        };
    }

    private function failure(int $status, string $name): Throwable
    {
        // Read the text first: the next call of the library replaces it.
        $detail = (string) $this->c->lock_last_error();
        if ($this->session === null) {
            return new ConnectionLostException('the connection was closed');
        }
        return match ($status) {
            $this->c->LOCK_LOST, $this->c->LOCK_IO => new ConnectionLostException($this->end ?? $detail),
            $this->c->LOCK_DOUBT => new DoubtException($detail),
            $this->c->LOCK_FORKED => new ForkedException($detail),
            $this->c->LOCK_DEADLOCK => new DeadlockException("waiting for \"$name\" would be a deadlock: $detail"),
            $this->c->LOCK_ALREADY_HELD, $this->c->LOCK_PENDING => new AlreadyHeldException($detail),
            $this->c->LOCK_NOT_HELD => new NotHeldException("this client does not hold \"$name\""),
            $this->c->LOCK_INVALID => new InvalidArgumentException($detail),
            $this->c->LOCK_TIMEOUT => $this->unanswered(),
            // LOCK_REFUSED; and an unknown status must not count as success.
            default => new RefusedException($detail, self::cause($detail)),
        };
    }

    /**
     * The server has not answered for its dead-peer timeout, and would not answer the next request
     * either. So the session is ended, and that time is lost only once. Not with several servers:
     * locks on those that answer would be lost too.
     */
    private function unanswered(): ConnectionLostException|TimeoutException
    {
        if ($this->server === null) {
            return new TimeoutException('the server has not answered in time');
        }
        $this->end = "$this->server: the server has not answered in time";
        // Does not wait for the server. The work under the locks may be half done.
        $this->c->lock_abandon($this->session);
        return new ConnectionLostException($this->end);
    }
}
