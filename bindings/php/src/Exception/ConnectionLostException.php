<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** The connection has ended, and all locks held on it are lost. Nothing reconnects by itself. */
final class ConnectionLostException extends \RuntimeException implements LockdException
{
}
