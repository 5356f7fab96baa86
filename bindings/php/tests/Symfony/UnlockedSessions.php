<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Symfony\Component\HttpFoundation\Session\Storage\Handler\AbstractSessionHandler;

/**
 * Sessions in files without a lock, kept as Symfony's own handlers keep theirs: what was read to
 * check an id is not read again.
 */
final class UnlockedSessions extends AbstractSessionHandler
{
    public function __construct(private readonly string $directory)
    {
    }

    public function close(): bool
    {
        return true;
    }

    public function gc(int $max_lifetime): int|false
    {
        return 0;
    }

    public function updateTimestamp(string $id, string $data): bool
    {
        return true;
    }

    protected function doRead(string $sessionId): string
    {
        $file = "$this->directory/sess_$sessionId";
        return is_file($file) ? (string) file_get_contents($file) : '';
    }

    protected function doWrite(string $sessionId, string $data): bool
    {
        return file_put_contents("$this->directory/sess_$sessionId", $data) !== false;
    }

    protected function doDestroy(string $sessionId): bool
    {
        return unlink("$this->directory/sess_$sessionId");
    }
}
