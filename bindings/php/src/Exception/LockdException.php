<?php

declare(strict_types=1);

namespace Lockd\Exception;

use Throwable;

/** Everything that this package throws by itself; what a caller's own code throws is passed on as it is. */
interface LockdException extends Throwable
{
}
