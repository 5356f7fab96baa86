<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Internal\Deadline;
use Lockd\Internal\Signals;
use Lockd\Message\Connection;
use Lockd\Message\Result;
use Throwable;

/**
 * A request that may have to wait for other clients, on one connection. The server keeps its time
 * limit. Knows nothing of what becomes of the session if the connection ends.
 *
 * @internal
 */
final class QueuedRequest
{
    /**
     * The longest time, in seconds, for which a signal handler is deferred if its signal comes just
     * before a wait.
     */
    private const SLICE = 0.25;

    /**
     * Sends a request that may have to wait, and waits for its answer.
     *
     * @param array<string, int|string> $parameters
     * @param callable(Connection): mixed $withdraw undoes the request if it was granted
     * @return ?Result null: the time limit has passed
     */
    public static function await(
        ServerSession $session,
        ServerConnection $server,
        string $command,
        string $name,
        array $parameters,
        Deadline $deadline,
        callable $withdraw,
    ): ?Result {
        $connection = $server->connection;
        if (is_finite($deadline->remaining())) {
            $parameters['timeLimit'] = $deadline->remaining();
        }
        $id = $connection->send($command, $parameters);
        $answer = null;
        try {
            do {
                Signals::dispatch();
                $answer = $connection->answer($id) ?? self::listen($session, $server, $id, $deadline);
            } while ($answer === null);
        } catch (Throwable $e) {
            // The connection is lost, or a signal handler has thrown: the caller will never learn
            // of a grant.
            self::cancel($connection, $id, $withdraw);
            throw $e;
        }
        $result = $answer->object('result');
        if ($result->text('cause') === 'stopping' && $session->isResumable() && !$deadline->isOver()) {
            // That is no answer to this request: the session can go on when the server is back.
            throw $connection->lose('the server is stopping');
        }
        return $result->text('status') === 'timeout' ? null : Confirmation::of($connection, $result, $name);
    }

    /** Waits for the answer for one slice. */
    private static function listen(
        ServerSession $session,
        ServerConnection $server,
        int $id,
        Deadline $deadline,
    ): ?Result {
        $connection = $server->connection;
        $session->renewProof();
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
    private static function cancel(Connection $connection, int $id, callable $withdraw): void
    {
        try {
            $connection->ask('cancel', ['id' => $id]);
            // The answer to the request comes before the answer to the cancel.
            if ($connection->answer($id)?->object('result')->text('status') === 'ok') {
                $withdraw($connection);
            }
        } catch (Throwable) {
            // A request that cannot be cancelled ends with its connection.
            $connection->lose('a request could not be taken back');
        }
        $connection->forget($id);
    }
}
