<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** The client was opened by the parent process: a forked child must not use it. */
final class ForkedException extends \LogicException implements LockdException
{
}
