<?php

declare(strict_types=1);

namespace Lockd\Exception;

/**
 * The session is in doubt: its connection has ended, and whether it is resumed or lost is not known
 * yet ({@see \Lockd\SessionState::InDoubt}). It is no yes: begin nothing on the strength of a lock. It
 * is no {@see ConnectionLostException} either: whoever acquires the lock anew after that would wait
 * for its own session. {@see \Lockd\Client::waitCertain()} waits until it is known. Only sessions that
 * resume throw this.
 */
final class DoubtException extends \RuntimeException implements LockdException
{
    /**
     * @param bool $wasUnderWay whether the request had been sent when the connection ended: then it
     *     may have been carried out
     */
    public function __construct(string $message, public readonly bool $wasUnderWay = false)
    {
        parent::__construct($message);
    }
}
