<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** What was waited for has not come within its time limit. */
final class TimeoutException extends \RuntimeException implements LockdException
{
}
