<?php

/**
 * An old script that uses `pkLockClient`. Arguments: the file of the class, host, port. With a file
 * and a number as well, it increments the number in the file that many times.
 */

declare(strict_types=1);

require $argv[1];

function answer(string $what, mixed $answer): void
{
    echo $what, ': ', $answer ? 'yes' : 'no', "\n";
}

$client = new pkLockClient(array('host' => $argv[2], 'port' => $argv[3]));
if (isset($argv[5])) {
    for ($n = 0; $n < (int) $argv[5]; $n++) {
        $response = $client->lock('counter');
        if ($response) {
            $number = (int) file_get_contents($argv[4]);
            // Leave the other process time to interfere, if the lock does not prevent it.
            usleep(100);
            file_put_contents($argv[4], (string) ($number + 1));
            $client->unlock('counter');
        }
    }
    exit("done\n");
}

$other = new pkLockClient(array('host' => $argv[2], 'port' => $argv[3], 'unheard' => 'of'));
answer('unlock before there is a connection', $client->unlock('test'));
answer('poll', $client->poll());
answer('flush', $client->flush());
answer('lock', $client->lock('test'));
answer('poll with a connection', $client->poll());
answer('lock again', $client->lock('test'));
answer('other gives up', $other->lock('test', array('timeLimit' => 0.3)));
answer('other gives up at once', $other->lock('test', array('timeLimit' => 0)));
answer('other unlocks', $other->unlock('test'));
answer('unlock', $client->unlock('test'));
answer('unlock again', $client->unlock('test'));
answer('flush with a connection', $client->flush());
answer('other locks in time', $other->lock('test', array('timeLimit' => 20)));
answer('other unlocks it', $other->unlock('test'));
answer('other locks without limit', $other->lock('test', array('timeLimit' => false)));
$names = [17, 1.5, '', ' spaced  out ', "lines\nof\0text", "Stra\u{df}e \u{1F512} \"\\/", str_repeat('x', 900)];
foreach ($names as $name) {
    answer('lock ' . json_encode($name), $client->lock($name));
    answer('other locks it', $other->lock($name, array('timeLimit' => 0)));
    answer('unlock it', $client->unlock($name));
}
answer('too long a name', $client->lock(str_repeat('x', 5000)));
$result = $client->rpc('ping', array('to' => 'you'));
answer('rpc', $result['status'] === 'ok' && $result['parameters'] === array('to' => 'you'));
$result = $client->rpc('dance', array());
answer('rpc of what there is not', $result['status'] === 'ok');
// Both classes warn of a server that cannot be reached, each in its own words.
error_reporting(0);
$nowhere = new pkLockClient(array('host' => $argv[2], 'port' => 1));
answer('lock nowhere', $nowhere->lock('test'));
answer('unlock nowhere', $nowhere->unlock('test'));
answer('rpc nowhere', $nowhere->rpc('ping', array()));
answer('poll nowhere', $nowhere->poll());
error_reporting(E_ALL);
unset($other);
answer('the lock of the other when it is gone', $client->lock('test'));
