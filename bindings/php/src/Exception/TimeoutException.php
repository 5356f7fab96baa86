<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** The lock was not granted, or the answer has not come, within the time limit. */
final class TimeoutException extends \RuntimeException implements LockdException
{
}
