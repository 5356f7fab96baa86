<?php

/**
 * An old script that uses `lockc`. Arguments: the file of the class, host, port. With a file and a
 * number as well, it increments the number in the file that many times.
 */

declare(strict_types=1);

require $argv[1];

function answer(string $what, mixed $answer): void
{
    echo $what, ': ', var_export($answer, true), "\n";
}

$mine = new lockc($argv[2], $argv[3]);
if (isset($argv[5])) {
    for ($n = 0; $n < (int) $argv[5]; $n++) {
        while (!$mine->lock('counter')) {
            usleep(200);
        }
        $number = (int) file_get_contents($argv[4]);
        // Leave the other process time to interfere, if the lock does not prevent it.
        usleep(100);
        file_put_contents($argv[4], (string) ($number + 1));
        $mine->unlock('counter');
    }
    exit("done\n");
}

$other = new lockc($argv[2], $argv[3]);
answer('locked by nobody', $mine->is_locked('page 1'));
answer('lock', $mine->lock('page 1'));
answer('other locks', $other->lock('page 1'));
answer('other gets', $other->get('page 1'));
answer('other is told', $other->is_locked('page 1'));
answer('other checks', $other->check('page 1'));
answer('other inspects', $other->inspect('page 1'));
answer('other unlocks', $other->unlock('page 1'));
answer('unlock', $mine->unlock('page 1'));
answer('unlock again', $mine->release('page 1'));
answer('other gets it', $other->get('page 1'));
answer('release', $other->release('page 1'));
// The drop-in class warns of names with white space that is folded.
error_reporting(E_ALL & ~E_USER_WARNING);
$names = [17, 1.5, true, '', null, ' spaced  out ', "tab\tbed", "from a file\n", "\xe4\xf6", str_repeat('x', 900)];
foreach ($names as $name) {
    answer('lock ' . json_encode(bin2hex((string) $name)), $mine->lock($name));
    answer('other locks it', $other->lock($name));
    // An empty line, if the class has sent one, has no reply.
    answer('unlock it', $mine->unlock($name));
}
error_reporting(E_ALL);
answer('too long a name', $mine->lock(str_repeat('x', 5000)));
answer('and then', $mine->lock('next'));
echo $mine->lock('pool', true), $other->lock('pool', true), $other->get('pool', true), "\n";
echo $mine->is_locked('pool', true), $mine->check('pool', true), $mine->inspect('pool', true), "\n";
answer('exclusive beside', $mine->lock('pool'));
answer('unlock shared', $mine->unlock('pool', true));
echo $other->inspect('pool', true), "\n";
answer('release shared', $other->release('pool', true));
answer('release shared again', $other->release('pool', true));
answer('shared by none', $other->inspect('pool', true));
$port = new lockc($argv[2], 1);
$port->port = $argv[3];
answer('the port is set later', $port->is_locked('next'));
answer('it is connected', $port->connect() && is_resource($port->fp));
// Both classes warn of a server that cannot be reached, each in its own words.
error_reporting(0);
$nowhere = new lockc($argv[2], 1);
answer('connect to nowhere', $nowhere->connect());
answer('why', [$nowhere->fp, $nowhere->errno, $nowhere->errst]);
foreach (['lock', 'get', 'unlock', 'release', 'is_locked', 'check', 'inspect'] as $method) {
    answer("$method nowhere", $nowhere->$method('page 1'));
    answer("$method nowhere, shared", $nowhere->$method('page 1', true));
}
error_reporting(E_ALL);
unset($mine);
for ($try = 0; $try < 3000 && !$other->lock('next'); $try++) {
    usleep(5000);
}
answer('other has it when the first is gone', $try < 3000);
