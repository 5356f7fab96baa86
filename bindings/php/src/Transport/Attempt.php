<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Closure;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Internal\Deadline;
use Lockd\Message\Connection;
use Lockd\Message\Result;

/**
 * One attempt to reach a server again: connects, and sends one request, without ever waiting. Knows
 * nothing of what the answer means.
 *
 * @internal
 */
final class Attempt
{
    /** How long an attempt may take, from connecting to the answer, in seconds. */
    private const LIMIT = 2.0;

    /** The same if it is made next at another place of the server. */
    private const LIMIT_OF_PLACE = 1.0;

    private readonly float $seconds;
    private Deadline $limit;
    private ?int $id = null;
    private ?Result $answer = null;
    /** @var list<string> the names that the request has claimed */
    private array $claimed = [];

    /** @param bool $isLast false: another place of the server will be tried at once */
    public function __construct(public readonly Connection $connection, bool $isLast = true)
    {
        $this->seconds = $isLast ? self::LIMIT : self::LIMIT_OF_PLACE;
        $this->limit = Deadline::in($this->seconds);
    }

    /**
     * Goes one step on.
     *
     * @param Closure(): array{string, array<string, mixed>, list<string>} $request is called when it
     *     is sent: the command, its parameters, and the names in it
     * @return bool whether there is an answer
     * @throws ConnectionLostException the attempt has failed, or takes too long
     * @throws ConnectException
     */
    public function step(Closure $request): bool
    {
        if ($this->id === null && $this->connection->isConnected()) {
            [$command, $parameters, $this->claimed] = $request();
            $this->id = $this->connection->post($command, $parameters);
            if ($this->limit->isOver()) {
                // The caller has looked late: the server has its time all the same.
                $this->limit = Deadline::in($this->seconds);
            }
        }
        if ($this->id !== null) {
            do {
                // The server may end the connection after its answer.
                $this->answer = $this->connection->answer($this->id)?->object('result');
            } while ($this->answer === null && $this->connection->poll());
        }
        if ($this->answer === null && $this->limit->isOver()) {
            $limit = Deadline::text($this->seconds);
            throw $this->connection->lose("the server has not answered within $limit s");
        }
        return $this->answer !== null;
    }

    public function answer(): Result
    {
        return $this->answer ?? new Result([]);
    }

    /** @return list<string> */
    public function claimed(): array
    {
        return $this->claimed;
    }

    /** Waits until the next step may lead further. */
    public function wait(float $seconds): void
    {
        $this->connection->awaitProgress($this->id !== null, min($seconds, $this->limit->remaining()));
    }

    /**
     * Closes it so that the server does not take it for the client's word that its work has ended.
     *
     * @return bool false: this cannot be done here, so that it must stay open
     */
    public function giveUp(): bool
    {
        if ($this->id === null) {
            // The server has heard nothing on it.
            $this->connection->abandon();
        }
        return $this->connection->reset();
    }
}
