<?php
declare(strict_types=1);

// Increments the number in a file, many times, each time while holding a lock. Arguments: protocol,
// host, port, file, times. What is lost shows that two were at it at once.

require __DIR__ . '/LockdClient.php';
require __DIR__ . '/GlockdClient.php';
require __DIR__ . '/PkLockClient.php';

[, $protocol, $host, $port, $file, $times] = $argv;
$client = match ($protocol) {
    'lockd' => new LockdClient($host, (int) $port),
    'glockd' => new GlockdClient($host, (int) $port),
    'message' => new PkLockClient($host, (int) $port),
};
for ($n = 0; $n < (int) $times; $n++) {
    while (!$client->lock('counter')) {
        usleep(200);
    }
    $number = (int) file_get_contents($file);
    // Time enough for the other to come in between, if anything lets it.
    usleep(100);
    file_put_contents($file, (string) ($number + 1));
    $client->unlock('counter');
}
echo "done\n";
