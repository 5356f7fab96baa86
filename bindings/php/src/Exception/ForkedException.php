<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** This process is a child of the one whose client this is: it must not act as its parent. */
final class ForkedException extends \LogicException implements LockdException
{
}
