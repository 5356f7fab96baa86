<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** A name, an address or a time limit that makes no sense, or that the server does not take. */
final class InvalidArgumentException extends \InvalidArgumentException implements LockdException
{
}
