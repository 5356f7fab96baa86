<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Exception\DeadlockException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Message\Connection;
use Lockd\Message\Result;

/**
 * Whether the server has confirmed a request, and if not, why.
 *
 * @internal
 */
final class Confirmation
{
    /**
     * Checks that the server has confirmed the request. A confirmation counts only if the
     * connection is alive after it has been read.
     *
     * @throws LockdException
     */
    public static function of(Connection $connection, Result $result, string $name): Result
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

    public static function failure(Result $result, string $name): LockdException
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
