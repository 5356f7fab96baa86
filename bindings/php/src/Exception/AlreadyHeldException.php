<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** One client is one owner: it holds this lock already, or is just waiting for it. */
final class AlreadyHeldException extends \LogicException implements LockdException
{
}
