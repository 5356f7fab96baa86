<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\RefusedException;
use Lockd\Exception\TimeoutException;
use Lockd\Internal\Deadline;
use Lockd\Internal\Requirements;
use Lockd\Internal\Signals;

/**
 * Calls commands of a `message` server by name. It is for a program's own commands, served in
 * addition to the lock commands or instead of them. For locks there is {@see \Lockd\Client}.
 */
final class MessageClient
{
    /**
     * The longest time, in seconds, for which a signal handler is deferred if its signal comes just
     * before a wait.
     */
    private const SLICE = 0.25;

    /** The dead-peer timeout assumed for the server, which is not asked for its own, in seconds. */
    private const DEAD_PEER_TIMEOUT = 25;

    /**
     * The commands of lockd whose results may tell a program that it holds a lock. Such a result
     * counts only if the connection is alive after it has been read.
     */
    private const TELL_OF_LOCKS = ['lock', 'convert', 'inspect', 'list', 'ping'];

    private function __construct(private readonly Connection $connection)
    {
    }

    /**
     * @param string $url `tcp://HOST:PORT` or `unix:/PATH`; a server of a cluster may have further
     *     places, as in `tcp://HOST:PORT,HOST:PORT`, of which the active one is used
     * @param float $timeout for connecting, in seconds
     * @throws ConnectException
     * @throws InvalidArgumentException for an address that is not valid, or with `?resume`
     */
    public static function connect(string $url, float $timeout = 5.0): self
    {
        Requirements::forStreams();
        $address = Address::parse($url);
        if ($address->resumes) {
            throw new InvalidArgumentException("\"$url\": ?resume is for the locks of a Client, not for commands");
        }
        $isOne = !isset($address->places()[1]);
        $connection = Places::open($address, $timeout, $timeout, static fn (Connection $one, float $left): Connection =>
            $isOne ? $one : self::active($one, $left));
        $connection->keepAlive(self::DEAD_PEER_TIMEOUT);
        return new self($connection);
    }

    /**
     * The connection, if its server is no standby: that answers every request in the same way.
     *
     * @throws ConnectException
     */
    private static function active(Connection $connection, float $within): Connection
    {
        try {
            $connection->await($connection->send('ping', []), $within);
            return $connection;
        } catch (ConnectionLostException $e) {
            throw new ConnectException($e->getMessage(), 0, $e, isAbsence: $connection->speaksMessage());
        }
    }

    /**
     * Sends a command to the server and waits for its result.
     *
     * @param array<string, mixed> $parameters
     * @param ?float $timeLimit in seconds; null: no limit
     * @return mixed the result of the command's handler; for the commands of lockd an array; for a
     *     command that the server does not know `['status' => 'unknown', 'command' => …]`, which is
     *     no exception
     * @throws RefusedException the server answers with an error
     * @throws TimeoutException the result has not arrived in time; the server may still carry out
     *     the command
     * @throws ConnectionLostException
     */
    public function rpc(string $command, array $parameters = [], ?float $timeLimit = 30.0): mixed
    {
        $deadline = Deadline::in($timeLimit);
        return Signals::deferred(function () use ($command, $parameters, $deadline, $timeLimit): mixed {
            $id = $this->connection->send($command, $parameters);
            try {
                do {
                    Signals::dispatch();
                    $this->connection->listen(min(self::SLICE, $deadline->remaining()));
                    $answer = $this->connection->answer($id);
                    if ($answer === null && $deadline->isOver()) {
                        $limit = Deadline::text($timeLimit ?? INF);
                        throw new TimeoutException("no result of \"$command\" within $limit s");
                    }
                } while ($answer === null);
                $error = $answer->fields['error'] ?? null;
                if ($error !== null) {
                    throw new RefusedException(is_string($error) ? $error : 'the server reports an error');
                }
                if (in_array($command, self::TELL_OF_LOCKS, true)) {
                    $this->connection->mustBeAlive();
                }
                return $answer->fields['result'] ?? null;
            } finally {
                $this->connection->forget($id);
            }
        });
    }

    /** Whether the connection is alive, as far as this can be known without asking the server. */
    public function stands(): bool
    {
        return $this->connection->isAlive();
    }

    public function close(): void
    {
        $this->connection->end();
    }
}
