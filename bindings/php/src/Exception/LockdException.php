<?php

declare(strict_types=1);

namespace Lockd\Exception;

use Throwable;

/** Everything that this package throws. */
interface LockdException extends Throwable
{
}
