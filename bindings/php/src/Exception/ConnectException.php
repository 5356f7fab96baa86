<?php

declare(strict_types=1);

namespace Lockd\Exception;

use Throwable;

/**
 * No session could be opened: the server cannot be reached, refuses this client, or is not lockd. Or
 * a function of PHP is disabled that is needed.
 */
final class ConnectException extends \RuntimeException implements LockdException
{
    /**
     * @param bool $isAbsence whether the server is absent now and may be there later. Anything else
     *     is a mistake, and the next attempt will fail in the same way
     */
    public function __construct(
        string $message,
        int $code = 0,
        ?Throwable $previous = null,
        public readonly bool $isAbsence = false,
    ) {
        parent::__construct($message, $code, $previous);
    }
}
