<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Closure;
use Generator;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Inspection;
use Lockd\Internal\Deadline;
use Lockd\Internal\Mode;
use Lockd\Internal\Signals;
use Lockd\ListedLock;
use Lockd\Message\Address;
use Lockd\Message\Connection;
use Lockd\Message\Places;
use Lockd\Message\Rendezvous;
use Lockd\Message\Result;
use Lockd\SessionState;

/**
 * Locks on a server, or on several servers over which the names are spread, in the `message`
 * protocol, with PHP's own streams alone. The server keeps the time limits.
 *
 * @internal
 */
final class StreamTransport implements Transport
{
    private const PAGE = 500;

    /**
     * @param array<string, ServerSession> $servers by address
     * @param array<string, string> $missing by address, the reason why there is no connection
     */
    private function __construct(private readonly array $servers, private readonly array $missing)
    {
    }

    /**
     * Connects to one server after another, each within an equal share of the time that is left, so
     * that one that does not answer leaves time for the others. A share is never less than an equal
     * part of the whole limit, so that the time a resolver takes is not at the expense of other
     * servers.
     *
     * @throws ConnectException no server answers
     */
    public static function connect(string $urls, ?string $owner, float $timeout): self
    {
        Connection::mustBeLimited($timeout);
        $deadline = Deadline::in($timeout);
        $addresses = Address::parseList($urls);
        [$servers, $missing] = [[], []];
        [$isAbsence, $last] = [true, null];
        $left = count($addresses);
        foreach ($addresses as $text => $address) {
            $share = max($deadline->remaining() / $left--, $timeout / count($addresses));
            try {
                $servers[$text] = ServerSession::open($address, $owner, $share, $timeout, beginsAnew: true);
            } catch (ConnectException $e) {
                $missing[$text] = $e->getMessage();
                $isAbsence = $isAbsence && $e->isAbsence;
                $last = $e;
            }
        }
        if ($servers === []) {
            throw new ConnectException(Places::together($missing), 0, $last, $isAbsence);
        }
        return new self($servers, $missing);
    }

    /**
     * Connects to this server only, for names that belong to it. On names of other servers nothing
     * must be asked here, because on this server those names are other locks. It does not begin
     * anew by itself while it holds nothing.
     *
     * @param float $within for connecting, in seconds
     * @param float $timeout for each answer that the server gives at once, in seconds
     * @throws ConnectException
     */
    public static function connectToOne(Address $address, ?string $owner, float $within, float $timeout): self
    {
        $session = ServerSession::open($address, $owner, $within, $timeout, beginsAnew: false);
        return new self([$address->text => $session], []);
    }

    public function acquire(string $name, Mode $mode, Deadline $deadline): ?Grant
    {
        $session = $this->sessionFor($name);
        return self::again($session, $deadline, function (ServerConnection $server) use (
            $session,
            $name,
            $mode,
            $deadline,
        ): ?Grant {
            $withdraw = fn (Connection $connection) => $connection->ask('unlock', self::named($name));
            $parameters = $server->parameters($mode) + self::named($name);
            $result = QueuedRequest::await($session, $server, 'lock', $name, $parameters, $deadline, $withdraw);
            if ($result?->flag('already')) {
                throw new AlreadyHeldException("this client already holds \"$name\"");
            }
            return $result === null ? null : self::grant($session, $server, $name, $mode, $result);
        });
    }

    public function convert(string $name, Mode $from, Mode $to, Deadline $deadline): ?Grant
    {
        $session = $this->sessionFor($name);
        if ($to->allowsAsManyAs($from)) {
            return $this->widen($session, $name, $from, $to);
        }
        return self::again($session, $deadline, function (ServerConnection $server) use (
            $session,
            $name,
            $from,
            $to,
            $deadline,
        ): ?Grant {
            $back = $server->parameters($from) + self::named($name);
            $withdraw = fn (Connection $connection) => $connection->ask('convert', $back);
            $parameters = $server->parameters($to) + self::named($name);
            $result = QueuedRequest::await($session, $server, 'convert', $name, $parameters, $deadline, $withdraw);
            return $result === null ? null : self::grant($session, $server, $name, $to, $result);
        });
    }

    /** Lets a lock have more holders. Such a change never waits. */
    private function widen(ServerSession $session, string $name, Mode $from, Mode $to): Grant
    {
        $server = $session->server();
        $parameters = $server->parameters($to) + self::named($name);
        // If the connection ends before the answer, the lock may be in either mode.
        $session->holdings->weaken($name, $to);
        try {
            return self::on($session, $server, static function (Connection $connection) use (
                $session,
                $server,
                $name,
                $to,
                $parameters,
            ): Grant {
                $result = Confirmation::of($connection, $connection->ask('convert', $parameters), $name);
                return self::grant($session, $server, $name, $to, $result);
            });
        } catch (RefusedException | InvalidArgumentException $e) {
            $session->holdings->weaken($name, $from);
            throw $e;
        }
    }

    /**
     * Asks for a lock, and again whenever the session is resumed or has begun anew meanwhile.
     *
     * @param Closure(ServerConnection): ?Grant $ask
     * @throws DoubtException it is in doubt when the time limit is over
     */
    private static function again(ServerSession $session, Deadline $deadline, Closure $ask): ?Grant
    {
        while (true) {
            $server = $session->waitFor($deadline);
            try {
                return self::on($session, $server, static fn (): ?Grant => $ask($server));
            } catch (DoubtException $e) {
                if ($deadline->isOver() || Signals::threw($e)) {
                    throw $e;
                }
            }
        }
    }

    /**
     * Asks on a connection of the session. If that ends meanwhile, it is thrown what this means for
     * the session.
     *
     * @template T
     * @param Closure(Connection): T $ask
     * @return T
     * @throws LockdException
     */
    private static function on(ServerSession $session, ServerConnection $server, Closure $ask): mixed
    {
        try {
            return $ask($server->connection);
        } catch (ConnectionLostException $e) {
            // A signal handler may use clients of its own.
            throw Signals::threw($e) ? $e : $session->failure($server, $e);
        }
    }

    public function release(string $name): bool
    {
        $session = $this->sessionFor($name);
        try {
            // First: if this resumes the session, it is with the lock, which is then released.
            $server = $session->server();
        } finally {
            // Also if the session is in doubt: then it does not claim the lock when it resumes.
            $session->holdings->giveUp($name);
        }
        try {
            $result = self::on($session, $server, static fn (Connection $connection): Result =>
                $connection->ask('unlock', self::named($name)));
        } catch (DoubtException $e) {
            try {
                $session->waitFor(Deadline::in($server->connection->timeout));
            } catch (DoubtException) {
                throw $e;
            }
            // Resumed without the lock: it is released.
            return true;
        }
        $session->holdings->released($name);
        return match ($result->text('status')) {
            'ok' => true,
            'notFound' => false,
            default => throw Confirmation::failure($result, $name),
        };
    }

    public function holds(string $name): bool
    {
        // The lock is held exactly as long as its session is alive.
        try {
            $session = $this->sessionFor($name);
            return self::on($session, $session->server(), static function (Connection $connection): bool {
                $isAnswered = $connection->ask('ping', [])->text('status') === 'ok';
                $connection->mustBeAlive();
                return $isAnswered;
            });
        } catch (ConnectionLostException | DoubtException) {
            return false;
        }
    }

    public function inspect(string $name): Inspection
    {
        $session = $this->sessionFor($name);
        $result = self::on($session, $session->server(), static fn (Connection $connection): Result =>
            Confirmation::of($connection, $connection->ask('inspect', self::named($name)), $name));
        return new Inspection(
            $result->text('mode'),
            $result->integer('holders') ?? 0,
            $result->integer('waiters') ?? 0,
            $result->flag('orphaned'),
            Mode::limitIn($result, $result->text('mode')),
        );
    }

    public function list(string $prefix): Generator
    {
        foreach ($this->missing as $reason) {
            // The locks on the missing server are unknown. The other servers' locks alone would
            // look like the whole list.
            throw new ConnectionLostException($reason);
        }
        $lists = [];
        foreach ($this->servers as $session) {
            $lists[] = self::listOf($session, $prefix);
        }
        while (true) {
            [$first, $its] = [null, null];
            foreach ($lists as $list) {
                // Null: this list is at its end.
                $lock = $list->current();
                if ($lock !== null && ($first === null || strcmp($lock->name, $first->name) < 0)) {
                    [$first, $its] = [$lock, $list];
                }
            }
            if ($first === null || $its === null) {
                return;
            }
            yield $first;
            $its->next();
        }
    }

    /** @return Generator<int, ListedLock> */
    private static function listOf(ServerSession $session, string $prefix): Generator
    {
        $parameters = ['limit' => self::PAGE] + ServerConnection::key('prefix', $prefix);
        $after = [];
        do {
            $ask = static fn (Connection $connection): Result =>
                Confirmation::of($connection, $connection->ask('list', $parameters + $after), $prefix);
            $page = Signals::deferred(static fn (): Result => self::on($session, $session->server(), $ask));
            $entries = $page->objects('locks');
            foreach ($entries as $entry) {
                $lock = ListedLock::fromMessage($entry);
                $after = ServerConnection::key('after', $lock->name);
                yield $lock;
            }
        } while ($page->flag('more') && $entries !== []);
    }

    public function state(array $names): SessionState
    {
        $states = [];
        foreach ($this->servers as $address => $session) {
            $states[$address] = $session->state();
        }
        if ($names === []) {
            return match (true) {
                in_array(SessionState::Alive, $states, true) => SessionState::Alive,
                in_array(SessionState::InDoubt, $states, true) => SessionState::InDoubt,
                default => SessionState::Lost,
            };
        }
        $worst = SessionState::Alive;
        foreach ($names as $name) {
            $state = $states[$this->addressOf($name)] ?? SessionState::Lost;
            if ($state === SessionState::Lost) {
                return $state;
            }
            $worst = $state === SessionState::InDoubt ? $state : $worst;
        }
        return $worst;
    }

    public function waitCertain(array $names, Deadline $deadline): SessionState
    {
        $addresses = $names === [] ? array_keys($this->servers) : array_map($this->addressOf(...), $names);
        do {
            foreach ($addresses as $address) {
                $state = $this->state($names);
                if ($state !== SessionState::InDoubt) {
                    return $state;
                }
                try {
                    $this->servers[$address]->waitFor($deadline);
                } catch (DoubtException | ConnectionLostException $e) {
                    if (Signals::threw($e)) {
                        throw $e;
                    }
                    // The state says so.
                }
            }
        } while (!$deadline->isOver());
        return $this->state($names);
    }

    public function isResumable(): bool
    {
        foreach ($this->servers as $session) {
            if (!$session->isResumable()) {
                return false;
            }
        }
        return true;
    }

    public function hasLostAServer(): bool
    {
        foreach ($this->servers as $session) {
            if ($session->state() !== SessionState::Alive) {
                return true;
            }
        }
        return false;
    }

    public function hasEnded(): bool
    {
        return $this->state([]) === SessionState::Lost;
    }

    public function keepForChildren(): void
    {
        foreach ($this->servers as $session) {
            $session->keepForChildren();
        }
    }

    public function close(): void
    {
        foreach ($this->servers as $session) {
            $session->close();
        }
    }

    /**
     * The server that a name belongs to.
     *
     * @throws ConnectionLostException there was no connection from the start. Another server cannot
     *     take over: a lock held on the missing server could be granted there a second time
     */
    private function sessionFor(string $name): ServerSession
    {
        $address = $this->addressOf($name);
        return $this->servers[$address] ?? throw new ConnectionLostException($this->missing[$address]);
    }

    /** The address of the server that a name belongs to, connected or not. */
    private function addressOf(string $name): string
    {
        $addresses = [...array_keys($this->servers), ...array_keys($this->missing)];
        assert($addresses !== []);
        return Rendezvous::choose($addresses, $name);
    }

    /** @return array<string, string> */
    private static function named(string $name): array
    {
        return ServerConnection::key('lockName', $name);
    }

    private static function grant(
        ServerSession $session,
        ServerConnection $server,
        string $name,
        Mode $mode,
        Result $result,
    ): Grant {
        $token = $result->integer('token') ?? 0;
        if ($token <= 0) {
            // The server may count the lock as held by this connection, so the connection must end.
            throw $server->connection->lose('the server sent a grant without a fencing token');
        }
        $session->holdings->granted($name, $mode, $token);
        return new Grant($token, $result->flag('orphaned'));
    }
}
