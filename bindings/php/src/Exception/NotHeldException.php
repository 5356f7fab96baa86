<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** The client does not hold this lock, or does not hold it any more. */
final class NotHeldException extends \LogicException implements LockdException
{
}
