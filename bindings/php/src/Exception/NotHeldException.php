<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** The client does not hold this lock, perhaps not any more. */
final class NotHeldException extends \LogicException implements LockdException
{
}
