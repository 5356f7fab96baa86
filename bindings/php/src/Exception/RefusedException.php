<?php

declare(strict_types=1);

namespace Lockd\Exception;

/**
 * The server refuses the request and says why: a limit, it is stopping, or it grants nothing yet.
 */
final class RefusedException extends \RuntimeException implements LockdException
{
}
