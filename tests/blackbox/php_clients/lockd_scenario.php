<?php
declare(strict_types=1);

// Two clients of the `lockd` protocol. Arguments: host, port.

require __DIR__ . '/LockdClient.php';
require __DIR__ . '/transcript.php';

[, $host, $port] = $argv;
$a = new LockdClient($host, (int) $port);
$b = new LockdClient($host, (int) $port);

note('a locks', $a->command('g page 1'));
note('a locks again', $a->command('g page 1'));
note('b locks', $b->command('g page 1'));
note('b looks', $b->command('i page 1'));
note('b unlocks', $b->command('r page 1'));
note('a unlocks', $a->command('r page 1'));
note('b looks again', $b->command('i page 1'));
note('b gets it', $b->lock('page 1'));
note('a shares', $a->lockShared('cache'));
note('b shares', $b->lockShared('cache'));
note('shares', $a->sharedCount('cache'));
note('a no longer shares', $a->unlockShared('cache'));
note('shares', $a->sharedCount('cache'));
note('nor does b', $b->unlockShared('cache'));
$statistics = $a->statistics();
note('keys', implode(' ', array_keys($statistics)));
note('connections', $statistics['conns']);
note('locks', $statistics['locks']);
$b->close();
for ($try = 0; $try < 2000 && $a->isLocked('page 1'); $try++) {
    usleep(5000);
}
note('still locked after b has gone', $a->isLocked('page 1'));
note('orphans', $a->statistics()['orphans'] > 0);
