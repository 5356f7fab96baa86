<?php

declare(strict_types=1);

namespace Lockd\Exception;

/** There is no session: the server cannot be reached, refuses this client, or is no lockd. */
final class ConnectException extends \RuntimeException implements LockdException
{
}
