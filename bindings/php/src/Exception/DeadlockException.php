<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** Waiting would have closed a cycle of owners, each waiting for the next. Nothing was queued. */
final class DeadlockException extends \RuntimeException implements LockdException
{
    /**
     * @param list<string> $circle the owners in the cycle by name or address, beginning with this
     *     client; only the first ones if the cycle is long; empty if the server does not name them
     */
    public function __construct(string $message, public readonly array $circle = [])
    {
        parent::__construct($message);
    }
}
