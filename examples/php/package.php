<?php

/**
 * A job that must not run twice at the same time, with the PHP package.
 *
 *     php package.php [SERVER]
 *
 * SERVER is tcp://127.0.0.1:20934 by default. Start the script in two terminals: the second waits
 * for the first, and stops waiting on Ctrl-C. Kill the first in the middle of its work (kill -9):
 * the second is told that the work may be half done.
 */

declare(strict_types=1);

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;

require __DIR__ . '/../../bindings/php/autoload.php';

// Signal handlers also run while the client waits for a lock.
$stop = false;
if (function_exists('pcntl_signal')) {
    pcntl_async_signals(true);
    pcntl_signal(SIGINT, function () use (&$stop): void {
        $stop = true;
        throw new RuntimeException('stopped');
    });
}

try {
    $client = Client::connect($argv[1] ?? 'tcp://127.0.0.1:20934', 'nightly report');
    echo "waiting for our turn\n";
    $lock = $client->acquire('nightly-report', 60.0);
    if ($lock === null) {
        echo "another process holds the lock\n";
        exit(1);
    }
    if ($lock->orphaned()) {
        echo "the last holder vanished: checking for half-done work\n";
    }
    for ($page = 1; $page <= 5; $page++) {
        // Check before each step that must not be done twice. The token is for a resource that can
        // refuse a late writer.
        if (!$lock->isHeld()) {
            throw new ConnectionLostException('the lock was lost');
        }
        echo "page $page, with token {$lock->token()}\n";
        usleep(200_000);
    }
    $lock->release();
    echo "done\n";
} catch (ConnectException $e) {
    fwrite(STDERR, "no lockd: {$e->getMessage()}\n");
    exit(2);
} catch (ConnectionLostException $e) {
    fwrite(STDERR, "stopped at once, because another process may hold the lock now: {$e->getMessage()}\n");
    exit(3);
} catch (RuntimeException $e) {
    if (!$stop) {
        throw $e;
    }
    echo "stopped waiting\n";
}
