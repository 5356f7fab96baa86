<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Generator;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
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
use Lockd\Message\Rendezvous;
use Lockd\Message\Result;
use Throwable;

/**
 * Locks on a server, or on several servers over which the names are spread, in the `message`
 * protocol, with PHP's own streams alone. The server keeps the time limits.
 *
 * @internal
 */
final class StreamTransport implements Transport
{
    /**
     * The longest time, in seconds, for which a signal handler is deferred if its signal comes just
     * before a wait.
     */
    private const SLICE = 0.25;

    private const PAGE = 500;

    /**
     * @param array<string, ServerConnection> $servers by address
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
                $servers[$text] = ServerConnection::open($address, $owner, $share, $timeout);
            } catch (ConnectException $e) {
                $missing[$text] = $e->getMessage();
                $isAbsence = $isAbsence && $e->isAbsence;
                $last = $e;
            }
        }
        if ($servers === []) {
            throw new ConnectException(self::together($missing), 0, $last, $isAbsence);
        }
        return new self($servers, $missing);
    }

    /**
     * The reasons in one text, which says only once what may be wrong with a silent server.
     *
     * @param array<string, string> $reasons
     */
    private static function together(array $reasons): string
    {
        $parts = explode(Connection::UNANSWERED, implode('; ', $reasons));
        $first = $parts[0];
        unset($parts[0]);
        return $parts === [] ? $first : $first . Connection::UNANSWERED . implode('', $parts);
    }

    /**
     * Connects to this server only, for names that belong to it. On names of other servers nothing
     * must be asked here, because on this server those names are other locks.
     *
     * @param float $within for connecting, in seconds
     * @param float $timeout for each answer that the server gives at once, in seconds
     * @throws ConnectException
     */
    public static function connectToOne(Address $address, ?string $owner, float $within, float $timeout): self
    {
        return new self([$address->text => ServerConnection::open($address, $owner, $within, $timeout)], []);
    }

    public function acquire(string $name, Mode $mode, Deadline $deadline): ?Grant
    {
        $withdraw = fn (Connection $connection) => $connection->ask('unlock', self::named($name));
        $result = $this->await('lock', $name, $mode, $deadline, $withdraw);
        if ($result?->flag('already')) {
            throw new AlreadyHeldException("this client already holds \"$name\"");
        }
        return $result === null ? null : $this->grant($name, $result);
    }

    public function convert(string $name, Mode $from, Mode $to, Deadline $deadline): ?Grant
    {
        $server = $this->serverFor($name);
        if ($to->allowsAsManyAs($from)) {
            // Such a change never waits.
            $connection = $server->connection;
            $result = $connection->ask('convert', $server->parameters($to) + self::named($name));
            return $this->grant($name, self::confirmed($connection, $result, $name));
        }
        $back = $server->parameters($from) + self::named($name);
        $withdraw = fn (Connection $connection) => $connection->ask('convert', $back);
        $result = $this->await('convert', $name, $to, $deadline, $withdraw);
        return $result === null ? null : $this->grant($name, $result);
    }

    /**
     * Sends a request that may have to wait, and waits for its answer.
     *
     * @param callable(Connection): mixed $withdraw undoes the request if it was granted
     * @return ?Result null: the time limit has passed
     */
    private function await(
        string $command,
        string $name,
        Mode $mode,
        Deadline $deadline,
        callable $withdraw,
    ): ?Result {
        $server = $this->serverFor($name);
        $connection = $server->connection;
        $parameters = $server->parameters($mode) + self::named($name);
        if (is_finite($deadline->remaining())) {
            $parameters['timeLimit'] = $deadline->remaining();
        }
        $id = $connection->send($command, $parameters);
        $answer = null;
        try {
            do {
                Signals::dispatch();
                $answer = $connection->answer($id) ?? self::listen($server, $id, $deadline);
            } while ($answer === null);
        } catch (Throwable $e) {
            // The connection is lost, or a signal handler has thrown: the caller will never learn
            // of a grant.
            $this->cancel($connection, $id, $withdraw);
            throw $e;
        }
        $result = $answer->object('result');
        return $result->text('status') === 'timeout' ? null : self::confirmed($connection, $result, $name);
    }

    /** Waits for the answer for one slice. */
    private static function listen(ServerConnection $server, int $id, Deadline $deadline): ?Result
    {
        $connection = $server->connection;
        $connection->listen(min(self::SLICE, $deadline->remaining() + 0.01));
        if ($deadline->overdue() > $connection->timeout && $connection->silence() > $connection->timeout) {
            $limit = Deadline::text($connection->timeout);
            throw $connection->lose("the server has not answered within $limit s");
        }
        if (!$server->isWatched && $connection->silence() > $connection->timeout) {
            // The kernel does not watch this connection, so check with a ping that the server is
            // alive.
            $connection->ask('ping', []);
        }
        return $connection->answer($id);
    }

    /** @param callable(Connection): mixed $withdraw */
    private function cancel(Connection $connection, int $id, callable $withdraw): void
    {
        try {
            $connection->ask('cancel', ['id' => $id]);
            // The answer to the request comes before the answer to the cancel.
            if ($connection->answer($id)?->object('result')->text('status') === 'ok') {
                $withdraw($connection);
            }
        } catch (Throwable) {
            // A request that cannot be cancelled ends with its connection.
            $connection->end();
        }
        $connection->forget($id);
    }

    public function release(string $name): bool
    {
        $result = $this->connectionFor($name)->ask('unlock', self::named($name));
        return match ($result->text('status')) {
            'ok' => true,
            'notFound' => false,
            default => throw self::failure($result, $name),
        };
    }

    public function holds(string $name): bool
    {
        // The lock is held exactly as long as its connection is alive.
        $connection = $this->connectionFor($name);
        try {
            $isAnswered = $connection->ask('ping', [])->text('status') === 'ok';
            $connection->mustBeAlive();
            return $isAnswered;
        } catch (ConnectionLostException) {
            return false;
        }
    }

    public function inspect(string $name): Inspection
    {
        $connection = $this->connectionFor($name);
        $result = self::confirmed($connection, $connection->ask('inspect', self::named($name)), $name);
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
        foreach ($this->servers as $server) {
            $lists[] = self::listOf($server->connection, $prefix);
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
    private static function listOf(Connection $connection, string $prefix): Generator
    {
        $parameters = ['limit' => self::PAGE] + self::key('prefix', $prefix);
        $after = [];
        do {
            $page = Signals::deferred(static function () use ($connection, $prefix, $parameters, $after): Result {
                return self::confirmed($connection, $connection->ask('list', $parameters + $after), $prefix);
            });
            $entries = $page->objects('locks');
            foreach ($entries as $entry) {
                $lock = ListedLock::fromMessage($entry);
                $after = self::key('after', $lock->name);
                yield $lock;
            }
        } while ($page->flag('more') && $entries !== []);
    }

    public function isAlive(array $names): bool
    {
        if ($this->hasEnded()) {
            return false;
        }
        foreach ($names as $name) {
            $server = $this->servers[$this->addressOf($name)] ?? null;
            if ($server?->connection->isAlive() !== true) {
                return false;
            }
        }
        return true;
    }

    public function hasLostAServer(): bool
    {
        foreach ($this->servers as $server) {
            if (!$server->connection->isAlive()) {
                return true;
            }
        }
        return false;
    }

    public function hasEnded(): bool
    {
        foreach ($this->servers as $server) {
            if ($server->connection->isAlive()) {
                return false;
            }
        }
        return true;
    }

    public function keepForChildren(): void
    {
        foreach ($this->servers as $server) {
            $server->connection->keepForChildren();
        }
    }

    public function close(): void
    {
        foreach ($this->servers as $server) {
            $server->connection->end();
        }
    }

    private function connectionFor(string $name): Connection
    {
        return $this->serverFor($name)->connection;
    }

    /**
     * The server that a name belongs to.
     *
     * @throws ConnectionLostException there was no connection from the start. Another server cannot
     *     take over: a lock held on the missing server could be granted there a second time
     */
    private function serverFor(string $name): ServerConnection
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
        return self::key('lockName', $name);
    }

    /** @return array<string, string> */
    private static function key(string $key, string $value): array
    {
        // JSON text must be UTF-8, so other bytes are sent in hexadecimal.
        return preg_match('//u', $value) === 1 ? [$key => $value] : [$key . 'Hex' => bin2hex($value)];
    }

    private function grant(string $name, Result $result): Grant
    {
        $token = $result->integer('token') ?? 0;
        if ($token <= 0) {
            // The server may count the lock as held by this connection, so the connection must end.
            throw $this->connectionFor($name)->lose('the server sent a grant without a fencing token');
        }
        return new Grant($token, $result->flag('orphaned'));
    }

    /**
     * Checks that the server has confirmed the request. A confirmation counts only if the
     * connection is alive after it has been read.
     *
     * @throws LockdException
     */
    private static function confirmed(Connection $connection, Result $result, string $name): Result
    {
        if ($result->text('status') === 'notFound') {
            // Or this client would go on to believe that it holds the lock.
            throw $connection->lose("the server does not know the lock \"$name\" that this client holds");
        }
        if ($result->text('status') !== 'ok') {
            throw self::failure($result, $name);
        }
        $connection->mustBeAlive();
        return $result;
    }

    private static function failure(Result $result, string $name): LockdException
    {
        $reason = $result->text('reason') ?? '';
        $circle = $result->texts('circle');
        // The server does not name all sessions of a long cycle, and may be configured to name
        // none.
        $size = $result->integer('circleSize');
        $named = implode(' > ', $circle) . ($size === null ? '' : ($circle === [] ? '' : ' > … ') . "($size owners)");
        return match ($result->text('status')) {
            'deadlock' => new DeadlockException(
                "waiting for \"$name\" would be a deadlock: $named",
                $circle,
            ),
            'invalid' => new InvalidArgumentException($reason),
            'refused' => new RefusedException($reason, $result->text('cause')),
            // An unknown status must not count as success.
            default => new RefusedException('the server\'s answer is unknown: ' . (json_encode($result->fields) ?: '')),
        };
    }
}
