<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** To wait would have closed a circle of owners of which each waits for the next. Nothing was queued. */
final class DeadlockException extends \RuntimeException implements LockdException
{
    /**
     * @param list<string> $circle the owners by name or address, the asker first; of a long circle only the first
     *     ones; empty if the server does not tell
     */
    public function __construct(string $message, public readonly array $circle = [])
    {
        parent::__construct($message);
    }
}
