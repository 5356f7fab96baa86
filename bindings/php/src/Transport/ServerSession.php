<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\LockdException;
use Lockd\Internal\Deadline;
use Lockd\Internal\Moment;
use Lockd\Internal\RetryPacer;
use Lockd\Internal\Signals;
use Lockd\Message\Address;
use Lockd\Message\Connection;
use Lockd\Message\Dialer;
use Lockd\Message\Frames;
use Lockd\Message\Result;
use Lockd\SessionState;

/**
 * A session on one server: its connection, and what becomes of the session when that ends. Without
 * a ticket it is lost. With one, it is in doubt if it holds something: it connects again and asks to
 * be resumed, until the time is over that the ticket allows. If it holds nothing, it begins anew.
 *
 * Nothing happens by itself: each call goes a step on, and {@see waitFor()} goes on until it is
 * known what becomes of the session. While it is in doubt nothing is closed, since the server would
 * take that for the client's word that its work has ended.
 *
 * @internal
 */
final class ServerSession
{
    /** The longest message that a server reads, in bytes. */
    private const MESSAGE_MAX = 1 << 20;

    /**
     * The longest time, in seconds, for which a signal handler is deferred if its signal comes just
     * before a wait.
     */
    private const SLICE = 0.25;

    public readonly Holdings $holdings;

    /** Null: there is none now. */
    private ?ServerConnection $server;
    /** Null: the session cannot resume. */
    private ?Ticket $ticket;
    /**
     * The places of the server, with their addresses in numbers, so that no resolver is asked in
     * doubt. The one where it was active last comes first. Empty: the session cannot resume.
     *
     * @var list<array{Address, string}>
     */
    private array $places = [];
    /** Null: there is a connection, or the session is lost. */
    private ?Reconnection $reconnection = null;
    /** For attempts of a session that holds nothing, which may go on for long. */
    private readonly RetryPacer $pacer;
    /** When the latest request was sent that has been answered, of a session that is in doubt. */
    private ?Moment $proof = null;
    /** The number of the last attempt to resume. */
    private int $attempts = 0;
    /** The request that releases what was given up in doubt; null: it is not under way. */
    private ?int $unlocking = null;
    /** @var list<string> the names in it */
    private array $unlocked = [];
    /** Why the session is lost; null: it is not. */
    private ?string $lost = null;
    /** @var list<Connection> earlier ones, which stay open and unread */
    private array $kept = [];

    /**
     * @param bool $beginsAnew whether it connects again by itself while it holds nothing
     */
    private function __construct(
        ServerConnection $server,
        private readonly Address $address,
        private readonly ?string $owner,
        private readonly float $timeout,
        private readonly bool $beginsAnew,
    ) {
        $this->holdings = new Holdings();
        $this->pacer = new RetryPacer();
        $this->server = $server;
        $this->ticket = $server->ticket;
        if ($this->ticket !== null) {
            $this->places = self::otherPlaces($server->connection, $address);
            $this->isActiveAt($server->connection);
        }
    }

    /** @return list<array{Address, string}> */
    private static function otherPlaces(Connection $connection, Address $address): array
    {
        $places = [];
        foreach ($address->places() as $place) {
            $remotes = $place === $connection->address ? [] : (new Dialer())->numeric($place);
            foreach ($remotes as $remote) {
                $places[] = [$place, $remote];
            }
        }
        return $places;
    }

    /** Puts the place of this connection before the others. */
    private function isActiveAt(Connection $connection): void
    {
        $active = [$connection->address, $connection->remote()];
        $others = array_filter($this->places, static fn (array $place): bool => $place !== $active);
        $this->places = [$active, ...array_values($others)];
    }

    /**
     * @param float $within for connecting, in seconds
     * @param float $timeout for each answer that the server gives at once, in seconds
     * @throws ConnectException
     */
    public static function open(
        Address $address,
        ?string $owner,
        float $within,
        float $timeout,
        bool $beginsAnew,
    ): self {
        $server = ServerConnection::open($address, $owner, $within, $timeout);
        return new self($server, $address, $owner, $timeout, $beginsAnew);
    }

    /** Whether it can resume. */
    public function isResumable(): bool
    {
        return $this->ticket !== null;
    }

    public function state(): SessionState
    {
        try {
            if ($this->ticket === null && $this->server?->connection->isAlive() === false) {
                return SessionState::Lost;
            }
            return $this->step() === null ? SessionState::InDoubt : SessionState::Alive;
        } catch (ConnectionLostException) {
            return SessionState::Lost;
        }
    }

    /**
     * The connection, after one step to get one if there is none.
     *
     * @throws DoubtException there is none yet
     * @throws ConnectionLostException
     */
    public function server(): ServerConnection
    {
        return $this->step() ?? throw $this->doubt(false);
    }

    /**
     * The connection, as soon as there is one.
     *
     * @throws DoubtException there is none within the time limit
     * @throws ConnectionLostException
     */
    public function waitFor(Deadline $deadline): ServerConnection
    {
        while (true) {
            $server = $this->step();
            if ($server !== null) {
                return $server;
            }
            if ($deadline->isOver()) {
                throw $this->doubt(false);
            }
            // A handler may use this session.
            Signals::dispatch();
            $seconds = min(self::SLICE, $deadline->remaining());
            if ($this->proof !== null && $this->ticket !== null) {
                $seconds = min($seconds, $this->ticket->doubtLasts($this->proof));
            }
            $this->reconnection?->wait($seconds);
        }
    }

    /**
     * What it means for a request that its connection has ended: the exception to throw.
     *
     * @param ServerConnection $server on which the request was sent
     */
    public function failure(ServerConnection $server, ConnectionLostException $e): LockdException
    {
        if ($this->ticket === null && $this->lost === null) {
            return $e;
        }
        try {
            if ($this->server === $server) {
                $this->connectionEnded($server->connection);
            }
            $this->step();
            return $this->doubt(true);
        } catch (ConnectionLostException $lost) {
            return $lost;
        }
    }

    /**
     * To be called while a request waits: sends a ping now and then, without waiting.
     *
     * @throws ConnectionLostException a ping was not answered, and the server may be at another place
     */
    public function renewProof(): void
    {
        if ($this->ticket !== null && !$this->holdings->isEmpty()) {
            $patience = isset($this->address->places()[1]) ? $this->ticket->patience() : INF;
            $this->server?->connection->renewProof($this->ticket->proofAge(), $patience);
        }
    }

    /** @see Transport::keepForChildren() */
    public function keepForChildren(): void
    {
        $this->server()->connection->keepForChildren();
        // The programs would not have the connection of a session that was resumed.
        $this->ticket = null;
    }

    /** Ends the session, on all its connections. */
    public function close(): void
    {
        foreach ([...$this->kept, ...$this->reconnection?->connections() ?? []] as $connection) {
            $connection->end();
        }
        $this->server?->connection->end();
        $this->lost ??= $this->server?->connection->whyOver() ?? 'the connection was closed';
        [$this->server, $this->reconnection, $this->kept] = [null, null, []];
    }

    private function doubt(bool $wasUnderWay): DoubtException
    {
        $reason = $this->reconnection?->reason() ?? 'the connection has ended';
        $limit = $this->proof === null || $this->ticket === null ? ''
            : '; whether the session is resumed is known within '
                . Deadline::text($this->ticket->doubtLasts($this->proof)) . ' s';
        return new DoubtException("{$this->address->text}: in doubt: $reason$limit", $wasUnderWay);
    }

    /** Ends the session as lost. Its connections stay open until the caller, who is told, closes it. */
    private function lose(string $reason): ConnectionLostException
    {
        $this->lost = $reason;
        $this->kept = [...$this->kept, ...$this->reconnection?->connections() ?? []];
        [$this->reconnection, $this->proof] = [null, null];
        return new ConnectionLostException("{$this->address->text}: $reason");
    }

    /**
     * Goes one step on, without waiting.
     *
     * @return ?ServerConnection null: there is no connection yet
     * @throws ConnectionLostException
     */
    private function step(): ?ServerConnection
    {
        if ($this->lost !== null) {
            throw new ConnectionLostException("{$this->address->text}: $this->lost");
        }
        if ($this->server !== null) {
            if ($this->ticket === null) {
                return $this->server;
            }
            if ($this->server->connection->isAlive()) {
                $this->confirmUnlocked($this->server->connection);
                try {
                    $this->renewProof();
                } catch (ConnectionLostException) {
                    // The connection is over, as is seen below; the session need not be.
                }
            }
            if ($this->server->connection->isAlive()) {
                return $this->server;
            }
            $this->connectionEnded($this->server->connection);
        }
        return $this->reconnect();
    }

    /** @throws ConnectionLostException the session is lost */
    private function connectionEnded(Connection $connection): void
    {
        $this->server = $this->unlocking = null;
        $reason = $connection->whyOver() ?? 'the connection has ended';
        $isInDoubt = !$this->holdings->isEmpty();
        if ($isInDoubt) {
            $this->kept[] = $connection;
            $this->proof = $connection->proof();
            $this->mustNotBeTooLate($reason);
        } else {
            $connection->end();
            if (!$this->beginsAnew) {
                throw $this->lose($reason);
            }
        }
        $pacer = $isInDoubt ? RetryPacer::forDoubt() : $this->pacer;
        $this->reconnection = new Reconnection($pacer, $reason, $isInDoubt, max(1, count($this->places)));
    }

    /** @throws ConnectionLostException */
    private function mustNotBeTooLate(string $reason): void
    {
        if ($this->proof !== null && $this->ticket?->doubtLasts($this->proof) === 0.0) {
            throw $this->lose("$reason; and the session was not resumed in time");
        }
    }

    /** @throws ConnectionLostException */
    private function reconnect(): ?ServerConnection
    {
        $attempt = $this->reconnection?->step(
            fn (int $place): Connection => Connection::begin(...$this->places[$place], timeout: $this->timeout),
            fn (): array => $this->proof === null
                ? ['hello', ServerConnection::greeting($this->address), []]
                : ['resume', $this->resumption(), $this->holdings->names()],
        );
        if ($this->lost !== null) {
            throw new ConnectionLostException("{$this->address->text}: $this->lost");
        }
        // After the answer was read: one that came too late changes nothing.
        $this->mustNotBeTooLate($this->reconnection?->reason() ?? '');
        if ($this->proof === null && $this->reconnection?->speaksMessage() === false) {
            throw $this->lose($this->reconnection->reason());
        }
        if ($attempt === null) {
            return null;
        }
        return $this->proof === null ? $this->begunAnew($attempt) : $this->judged($attempt);
    }

    /**
     * The parameters of the next attempt to resume.
     *
     * @return array<string, mixed>
     * @throws ConnectException
     * @throws ConnectionLostException
     */
    private function resumption(): array
    {
        assert($this->ticket !== null);
        $parameters = [
            'session' => $this->ticket->session,
            'epoch' => $this->ticket->epoch,
            'secret' => $this->ticket->secret,
            'deadPeerTimeout' => $this->ticket->deadPeerTimeout,
            'attempt' => ++$this->attempts,
            'locks' => $this->holdings->claims(),
        ] + ServerConnection::identity($this->address);
        $frame = Frames::encode(['command' => 'resume', 'parameters' => $parameters, 'id' => 1]);
        if ($frame === false || strlen($frame) > self::MESSAGE_MAX) {
            throw $this->lose('the session holds too many locks to resume');
        }
        return $parameters;
    }

    /**
     * What the server has said to an attempt to resume.
     *
     * @throws ConnectionLostException
     */
    private function judged(Attempt $attempt): ?ServerConnection
    {
        $answer = $attempt->answer();
        $status = $answer->text('status');
        if (in_array($status, ['ended', 'unknown', 'invalid'], true)) {
            $reason = $answer->text('reason') ?? ($status === 'unknown' ? 'it is older' : 'without a reason');
            throw $this->lose(match ($status) {
                'ended', 'unknown' => "the server has ended the session: $reason",
                'invalid' => "the server does not understand how the session was to be resumed: $reason",
            });
        }
        try {
            $server = ServerConnection::accepted($attempt->connection, $answer, true);
        } catch (ConnectException | ConnectionLostException $e) {
            $this->reconnection?->retry($answer->text('reason') ?? $e->getMessage());
            return null;
        }
        if ($server->ticket === null) {
            $this->reconnection?->retry('the server has not said how the session resumes again');
            return null;
        }
        $unlock = $this->holdings->resumed($attempt->claimed());
        $this->resumed($server, $attempt);
        return $this->start($server, $unlock);
    }

    /** Puts the new connection in the place of the earlier ones. */
    private function resumed(ServerConnection $server, ?Attempt $attempt): void
    {
        $earlier = [...$this->kept, ...$this->reconnection?->connections() ?? []];
        foreach ($earlier as $connection) {
            if ($connection !== $attempt?->connection && !$connection->reset()) {
                // It is not this session's connection any more, so that its end says nothing.
                $connection->abandon();
            }
        }
        [$this->server, $this->ticket] = [$server, $server->ticket];
        $this->isActiveAt($server->connection);
        [$this->reconnection, $this->proof, $this->kept] = [null, null, []];
    }

    /**
     * Tells the server what must come before all else.
     *
     * @param list<string> $unlock names that were given up after they had been claimed
     */
    private function start(ServerConnection $server, array $unlock): ?ServerConnection
    {
        try {
            if ($unlock !== []) {
                $key = static fn (string $name): array => ServerConnection::key('lockName', $name);
                $this->unlocking = $server->connection->post('unlock', ['lockNames' => array_map($key, $unlock)]);
                $this->unlocked = $unlock;
            }
            ServerConnection::identify($server->connection, $this->owner);
        } catch (ConnectionLostException) {
            // The next step notices it.
            return null;
        }
        return $server;
    }

    private function confirmUnlocked(Connection $connection): void
    {
        if ($this->unlocking !== null && $connection->answer($this->unlocking) !== null) {
            array_map($this->holdings->released(...), $this->unlocked);
            $this->unlocking = null;
        }
    }

    /**
     * What the server has said to the hello of a session that holds nothing.
     *
     * @throws ConnectionLostException it refuses this client for good
     */
    private function begunAnew(Attempt $attempt): ?ServerConnection
    {
        try {
            $server = ServerConnection::accepted($attempt->connection, $attempt->answer(), true);
        } catch (ConnectException | ConnectionLostException $e) {
            if ($e instanceof ConnectException && !$e->isAbsence) {
                throw $this->lose($e->getMessage());
            }
            $this->reconnection?->retry($e->getMessage());
            return null;
        }
        $this->resumed($server, $attempt);
        return $this->start($server, []);
    }
}
