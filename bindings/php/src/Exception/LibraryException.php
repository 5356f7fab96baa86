<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** liblockd cannot be used here: it, or PHP's FFI, is missing, or it is of another version. */
final class LibraryException extends \RuntimeException implements LockdException
{
}
