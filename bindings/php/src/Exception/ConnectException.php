<?php

declare(strict_types=1);

namespace Lockd\Exception;

/**
 * No session could be opened: the server cannot be reached, refuses this client, or is not lockd.
 */
final class ConnectException extends \RuntimeException implements LockdException
{
}
