<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** A name, an address or a time limit is not valid, or the server does not accept it. */
final class InvalidArgumentException extends \InvalidArgumentException implements LockdException
{
}
