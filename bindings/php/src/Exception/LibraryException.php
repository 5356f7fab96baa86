<?php

declare(strict_types=1);

namespace Lockd\Exception;

/**
 * liblockd cannot be used: the library or PHP's FFI is missing, or the library has another version.
 */
final class LibraryException extends \RuntimeException implements LockdException
{
}
