<?php

/**
 * A request with a session: reads commands, one a line, and answers each in JSON.
 *
 *     php session-request.php URL TIMEOUT CLASS DIRECTORY [ID]
 */

declare(strict_types=1);

use Lockd\Session\LockingSessionHandler;

require __DIR__ . '/../bootstrap.php';

[, $url, $timeout, $class, $directory] = $argv;

$warnings = [];
set_error_handler(function (int $level, string $text) use (&$warnings): bool {
    if ((error_reporting() & $level) !== 0) {
        $warnings[] = $text;
    }
    return true;
});
$inner = $class === SessionHandler::class ? new SessionHandler() : new $class($directory);
session_set_save_handler(new LockingSessionHandler($inner, $url, (float) $timeout));
if (isset($argv[5])) {
    session_id($argv[5]);
}

while (($line = fgets(STDIN)) !== false) {
    $warnings = [];
    [$command, $argument] = explode(' ', trim($line), 2) + [1 => '0'];
    $result = match ($command) {
        'start' => session_start(),
        'read-and-close' => session_start(['read_and_close' => true]),
        'add' => $_SESSION['n'] = ($_SESSION['n'] ?? 0) + (int) $argument,
        'write' => session_write_close(),
        'abort' => session_abort(),
        'reset' => session_reset(),
        'destroy' => session_destroy(),
        'regenerate' => session_regenerate_id((bool) $argument),
        'collect' => session_gc(),
        'create-id' => session_create_id(),
        'count' => (function (int $times): int {
            for ($i = 0; $i < $times; $i++) {
                session_start();
                $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
                session_write_close();
            }
            return $_SESSION['n'];
        })((int) $argument),
        'die' => exit,
    };
    fwrite(STDOUT, json_encode([
        'result' => $result,
        'n' => $_SESSION['n'] ?? null,
        'id' => session_id(),
        'warnings' => $warnings,
    ]) . "\n");
}
