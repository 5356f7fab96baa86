<?php

/**
 * Drives the drop-in class `lockc`. The argument is the text protocol, `lockd` or `glockd`. The class
 * answers with numbers: after a 0, its stream shows whether it has a connection, and error() why it
 * has none.
 */

declare(strict_types=1);

namespace Conformance;

use lockc;

require __DIR__ . '/conformance.php';
require packageDirectory() . '/compat/lockc.php';

// It limits the wait for each reply by this.
ini_set('default_socket_timeout', '10');

final class Driver
{
    private ?lockc $lockc = null;
    /** @var array<array-key, true> the names of the locks that it has said yes to */
    private array $granted = [];

    /** @param list<string> $words */
    public function carryOut(string $command, array $words): string
    {
        if ($command === 'connect') {
            return $this->connect((float) secondsOf($words[1]), $words[2]);
        }
        if ($this->lockc === null) {
            return 'lost there is no object';
        }
        return match ($command) {
            'acquire' => $this->acquire(nameOf($words[0])),
            'release' => $this->release(nameOf($words[0])),
            'close' => $this->close(),
            default => 'error this command is not known',
        };
    }

    private function connect(float $timeout, string $url): string
    {
        $host = preg_replace('#^g?lockd://(.*):\d+$#', '$1', $url);
        $this->lockc = new lockc($host, (int) parse_url($url, PHP_URL_PORT), $timeout);
        return $this->lockc->connect() ? 'ok' : "failed {$this->lockc->error()}";
    }

    private function acquire(string $name): string
    {
        $before = $this->lockc->error();
        // To the holder it says no (lockd) or yes once more (glockd). A program knows what it has.
        $isGranted = isset($this->granted[$name]);
        if ($this->lockc->lock($name) === 1) {
            $this->granted[$name] = true;
            return $isGranted ? 'already' : 'granted';
        }
        return match (true) {
            !is_resource($this->lockc->fp) => $this->lost(),
            $this->lockc->error() !== $before => "invalid {$this->lockc->error()}",
            $isGranted => 'already',
            default => 'timeout',
        };
    }

    private function release(string $name): string
    {
        unset($this->granted[$name]);
        if ($this->lockc->unlock($name) === 1) {
            return 'ok';
        }
        return is_resource($this->lockc->fp) ? 'not-held' : $this->lost();
    }

    private function lost(): string
    {
        $error = $this->lockc->error();
        return (str_contains($error, 'the parent process') ? 'forked ' : 'lost ') . $error;
    }

    /** The class has no method for this: its locks are free when the object is destroyed. */
    public function close(): string
    {
        $this->lockc = null;
        $this->granted = [];
        return 'ok';
    }
}

$driver = new Driver();
converse(($argv[1] ?? 'lockd') . ' unix fork bounded', [
    'tls' => 'it speaks the protocol as it was',
    'secret' => 'the text protocols have no secrets',
    'several' => 'it has one server',
    'wait' => 'its protocol does not wait',
    'limit-wait' => 'its protocol does not wait',
    'shared' => 'shared locks of its protocol are counted apart from exclusive ones, and exclude nobody',
    'limit' => 'its protocol has no limits',
    'convert' => 'its protocol has no modes',
    'set' => 'it locks one name at a time',
    'token' => 'its protocol has no tokens',
    'orphaned' => 'its protocol does not say it',
    'check' => 'it says only whether a name is locked, by anybody',
    'inspect' => 'it says only whether a name is locked',
    'background' => 'PHP has no threads, and a call ends before the next one begins',
    'cancel' => 'a call does not wait',
    'notice' => 'it looks at the connection only when it is called',
    'deadlock' => 'its protocol does not wait',
    'names' => 'its protocol folds white space',
    'zero-byte' => 'it refuses them',
    'resume' => 'its protocol cannot resume',
], $driver->carryOut(...), $driver->close(...));
