<?php

declare(strict_types=1);

namespace Lockd\Exception;

use Throwable;

/**
 * All exceptions that this package throws by itself. Exceptions of a caller's code pass unchanged.
 */
interface LockdException extends Throwable
{
}
