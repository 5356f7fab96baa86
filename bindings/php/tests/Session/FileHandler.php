<?php

declare(strict_types=1);

namespace Lockd\Tests\Session;

use SessionHandlerInterface;

/** Keeps sessions in files of a directory, without any lock. */
class FileHandler implements SessionHandlerInterface
{
    public function __construct(protected readonly string $directory)
    {
    }

    protected function file(string $id): string
    {
        return "$this->directory/session-" . bin2hex($id);
    }

    public function open(string $path, string $name): bool
    {
        return true;
    }

    public function read(string $id): string|false
    {
        return (string) @file_get_contents($this->file($id));
    }

    public function write(string $id, string $data): bool
    {
        return file_put_contents($this->file($id), $data) !== false;
    }

    public function close(): bool
    {
        return true;
    }

    public function destroy(string $id): bool
    {
        return @unlink($this->file($id)) || !is_file($this->file($id));
    }

    public function gc(int $max_lifetime): int|false
    {
        return count(array_filter(array_map(unlink(...), glob("$this->directory/session-*") ?: [])));
    }
}
