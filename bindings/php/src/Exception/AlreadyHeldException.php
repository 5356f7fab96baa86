<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** One client is one owner: it holds this lock already, or waits for it already. */
final class AlreadyHeldException extends \LogicException implements LockdException
{
}
