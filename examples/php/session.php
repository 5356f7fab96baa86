<?php

/**
 * PHP's sessions, locked for a handler that does not lock them itself: four processes count in the
 * same session, and no step is lost.
 *
 *     php session.php [URL]
 *
 * URL is a server's address, tcp://127.0.0.1:20934 by default. Without the lock, that is with
 * session_set_save_handler($sessions) alone, steps are lost.
 */

declare(strict_types=1);

use Lockd\Session\LockingSessionHandler;

require __DIR__ . '/../../bindings/php/autoload.php';

const PROCESSES = 4;
const STEPS = 50;

/** Represents a cache or a database: keeps sessions in a directory, without any lock of its own. */
$sessions = new class (sys_get_temp_dir() . '/lockd-example-sessions') implements SessionHandlerInterface {
    public function __construct(private readonly string $directory)
    {
        @mkdir($directory, 0700);
    }

    private function file(string $id): string
    {
        return $this->directory . '/' . hash('sha256', $id);
    }

    public function open(string $path, string $name): bool
    {
        return true;
    }

    public function read(string $id): string
    {
        return is_file($this->file($id)) ? (string) file_get_contents($this->file($id)) : '';
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
        return !is_file($this->file($id)) || unlink($this->file($id));
    }

    public function gc(int $max_lifetime): int
    {
        return 0;
    }

    public function __destruct()
    {
        // This succeeds only when the directory is empty.
        @rmdir($this->directory);
    }
};

// There are no cookies on the command line; a request normally carries the session's id in one.
ini_set('session.use_cookies', '0');
ini_set('session.cache_limiter', '');

[, $url, $id] = $argv + [1 => 'tcp://127.0.0.1:20934', 2 => null];
session_set_save_handler(new LockingSessionHandler($sessions, $url));

if ($id !== null) {
    for ($step = 0; $step < STEPS; $step++) {
        session_id($id);
        // Waits for its turn.
        session_start() || exit(1);
        $_SESSION['steps'] = ($_SESSION['steps'] ?? 0) + 1;
        session_write_close();
    }
    exit(0);
}

$id = session_create_id();
$processes = [];
for ($at = 0; $at < PROCESSES; $at++) {
    $processes[] = proc_open([PHP_BINARY, __FILE__, $url, $id], [], $pipes);
}
$failed = array_filter(array_map(proc_close(...), $processes));

session_id($id);
session_start() || exit(1);
$steps = $_SESSION['steps'] ?? 0;
session_destroy();
echo PROCESSES, ' processes have made ', STEPS, " steps each, and the session has counted $steps\n";
exit($failed === [] && $steps === PROCESSES * STEPS ? 0 : 1);
