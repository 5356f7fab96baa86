<?php
declare(strict_types=1);

// Two clients of the `message` protocol. Arguments: host, port.

require __DIR__ . '/PkLockClient.php';
require __DIR__ . '/transcript.php';

[, $host, $port] = $argv;
$a = new PkLockClient($host, (int) $port);
$b = new PkLockClient($host, (int) $port);

note('a locks', $a->lock('page'));
note('a locks again', $a->lock('page'));
note('b gives up', $b->lock('page', 0.2));
note('b gives up at once', $b->lock('page', 0.0));
note('b unlocks', $b->unlock('page'));
note('a unlocks', $a->unlock('page'));
note('a unlocks again', $a->unlock('page'));
note('b locks in time', $b->lock('page', 5.0));
note('names in other scripts', $a->lock("Seite \u{1F512} \"ä\" \\ \n"));
note('and unlocked', $a->unlock("Seite \u{1F512} \"ä\" \\ \n"));
$b->close();
note('a has it after b has gone', $a->lock('page', 10.0));
