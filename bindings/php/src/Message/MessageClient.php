<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\RefusedException;
use Lockd\Exception\TimeoutException;
use Lockd\Internal\Deadline;
use Lockd\Internal\Signals;

/**
 * Calls commands of a message server by name: those of a program's own, that it serves beside the lock commands or
 * instead of them. For locks there is {@see \Lockd\Client}.
 */
final class MessageClient
{
    /** The longest time, in seconds, that a signal which came at the wrong moment has to wait for its handler. */
    private const SLICE = 0.25;

    /** Of a server that has not been asked for its own, in seconds. */
    private const DEAD_PEER_TIMEOUT = 25;

    /**
     * The commands of lockd by whose results a program may believe that it holds a lock: they count only if the
     * connection is alive after they have been read.
     */
    private const TELL_OF_LOCKS = ['lock', 'convert', 'inspect', 'list', 'ping'];

    private function __construct(private readonly Connection $connection)
    {
    }

    /**
     * @param string $url `tcp://HOST:PORT` or `unix:/PATH`
     * @param float $timeout for connecting, in seconds
     * @throws ConnectException
     */
    public static function connect(string $url, float $timeout = 5.0): self
    {
        $connection = Connection::open(Address::parse($url), $timeout, $timeout);
        $connection->keepAlive(self::DEAD_PEER_TIMEOUT);
        return new self($connection);
    }

    /**
     * Has the server carry out a command, and waits for its result.
     *
     * @param array<string, mixed> $parameters
     * @param ?float $timeLimit in seconds; null: none
     * @return mixed the result, as the command's handler has made it: for the commands of lockd an array
     * @throws RefusedException the server says that there is no result
     * @throws TimeoutException the result has not come by then; the command may still be carried out
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
                        throw new TimeoutException("no result of \"$command\" within $timeLimit s");
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

    /** Whether the connection stands, as far as can be known without asking the server. */
    public function stands(): bool
    {
        return $this->connection->stands();
    }

    public function close(): void
    {
        $this->connection->end();
    }
}
