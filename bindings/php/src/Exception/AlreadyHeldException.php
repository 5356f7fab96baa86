<?php

declare(strict_types=1);

namespace Lockd\Exception;

/**
 * This client already holds the lock, waits for it, or is converting it. One client is one owner.
 */
final class AlreadyHeldException extends \LogicException implements LockdException
{
}
