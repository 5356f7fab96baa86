<?php
declare(strict_types=1);

// Two clients of the `glockd` protocol. Arguments: host, port.

require __DIR__ . '/GlockdClient.php';
require __DIR__ . '/transcript.php';

[, $host, $port] = $argv;
$a = new GlockdClient($host, (int) $port);
$b = new GlockdClient($host, (int) $port);

note('a locks', $a->command('g page 1'));
note('a locks again', $a->command('g page 1'));
note('b locks', $b->command('g page 1'));
note('b looks', $b->command('i page 1'));
note('b unlocks', $b->command('r page 1'));
note('a registers', $a->command('iam a'));
note('holder', $b->command('d page 1'));
note('a unlocks', $a->command('r page 1'));
note('b looks again', $b->command('i page 1'));
note('a shares', $a->command('sg cache'));
note('b shares', $b->command('sg cache'));
note('b looks at the share', $b->command('si cache'));
note('a no longer shares', $a->command('sr cache'));
note('b no longer shares', $b->command('sr cache'));
note('nobody shares', $b->command('si cache'));
$counters = $a->counters();
note('keys', implode(' ', array_keys($counters)));
note('connections', $counters['connections']);
note('b locks at last', $b->lock('page 1'));
$b->close();
for ($try = 0; $try < 2000 && !$a->lock('page 1'); $try++) {
    usleep(5000);
}
note('a has it after b has gone', $a->unlock('page 1'));
