<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** The connection has ended, and with it all locks that were held on it. Nothing reconnects by itself. */
final class ConnectionLostException extends \RuntimeException implements LockdException
{
}
