<?php

declare(strict_types=1);

namespace Lockd\Tests\Session;

use SessionIdInterface;
use SessionUpdateTimestampHandlerInterface;

/**
 * A FileHandler with all optional interfaces: its ids begin with "our", and it knows its sessions.
 */
class CapableFileHandler extends FileHandler implements SessionIdInterface, SessionUpdateTimestampHandlerInterface
{
    // phpcs:ignore PSR1.Methods.CamelCapsMethodName -- the name is PHP's.
    public function create_sid(): string
    {
        return 'our' . bin2hex(random_bytes(8));
    }

    public function validateId(string $id): bool
    {
        return is_file($this->file($id));
    }

    public function updateTimestamp(string $id, string $data): bool
    {
        return touch("$this->directory/touched");
    }
}
