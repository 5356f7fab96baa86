<?php

declare(strict_types=1);

namespace Lockd\Exception;

/**
 * The server refuses the request and says why: a limit, it is stopping, or it grants nothing yet.
 */
final class RefusedException extends \RuntimeException implements LockdException
{
    /**
     * @param ?string $cause `stopping` (the server ends the connection) or `grace` (it grants
     *     nothing yet), if the state of the server is the reason; null: anything else
     */
    public function __construct(string $message, public readonly ?string $cause = null)
    {
        parent::__construct($message);
    }
}
