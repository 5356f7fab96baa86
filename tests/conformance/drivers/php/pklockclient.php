<?php

/**
 * Drives the drop-in class `pkLockClient`: exclusive locks by its own methods, all else by rpc().
 * It answers with true and false; after a false, poll() tells whether it has a connection, and
 * error() what was wrong.
 */

declare(strict_types=1);

namespace Conformance;

use pkLockClient;

require __DIR__ . '/conformance.php';
require packageDirectory() . '/compat/pkLockClient.php';

final class Driver
{
    private ?pkLockClient $client = null;
    /** @var array<array-key, array<string, int|string>> the modes of the locks that it has said yes to, by name */
    private array $granted = [];

    /** @param list<string> $words */
    public function carryOut(string $command, array $words): string
    {
        if ($command === 'connect') {
            return $this->connect((float) secondsOf($words[1]), $words[2]);
        }
        if ($this->client === null) {
            return 'lost there is no object';
        }
        $name = nameOf($words[0] ?? '');
        return match ($command) {
            'acquire' => $words[1] === 'exclusive'
                ? $this->acquire($name, $this->limit($words[2]))
                : $this->change('lock', $name, $words),
            'convert' => $this->change('convert', $name, $words),
            'release' => $this->release($name),
            'check' => $this->check($name),
            'inspect' => $this->inspect($name),
            'notice' => $this->notice((float) secondsOf($words[0])),
            'close' => $this->close(),
            default => 'error this command is not known',
        };
    }

    private function connect(float $timeout, string $url): string
    {
        [$host, $port] = str_starts_with($url, 'unix:')
            ? [$url, 0]
            : [preg_replace('#^tcp://(.*):\d+$#', '$1', $url), (int) parse_url($url, PHP_URL_PORT)];
        $this->client = new pkLockClient(['host' => $host, 'port' => $port, 'connectTimeLimit' => $timeout]);
        // It has no method that connects and does nothing else.
        return $this->client->rpc('ping') !== false ? 'ok' : "failed {$this->client->error()}";
    }

    /** @return array{timeLimit: float|false} */
    private function limit(string $word): array
    {
        return ['timeLimit' => secondsOf($word) ?? false];
    }

    /** @param array{timeLimit: float|false} $options */
    private function acquire(string $name, array $options): string
    {
        $before = $this->client->error();
        if (!$this->client->lock($name, $options)) {
            return $this->refusal($before);
        }
        // It says yes to the holder, too. A program knows what it has.
        $outcome = isset($this->granted[$name]) ? 'already' : 'granted';
        $this->granted[$name] = ['mode' => 'exclusive'];
        return $outcome;
    }

    /** What a false means, of which error() has the reason if it is another than the time limit. */
    private function refusal(string $before): string
    {
        $error = $this->client->error();
        $status = preg_match('/the server says: (.*)/s', $error, $parts) ? json_decode($parts[1], true) : null;
        return match (true) {
            !$this->client->poll() => $this->lost(),
            // Also if the server does not answer: the request has been withdrawn.
            $error === $before, $status === null => 'timeout',
            default => $this->meaning($status),
        };
    }

    /**
     * Acquires or converts by rpc().
     *
     * @param list<string> $words the name, the mode and the time limit
     */
    private function change(string $command, string $name, array $words): string
    {
        $mode = str_starts_with($words[1], 'at-most:')
            ? ['limit' => (int) substr($words[1], strlen('at-most:'))]
            : ['mode' => $words[1]];
        $options = $this->limit($words[2]);
        $result = $this->client->rpc($command, $this->named($name) + $mode, $options);
        if ($result === false) {
            return $this->lost();
        }
        $outcome = $this->meaning((array) $result);
        if ($outcome === 'granted') {
            $this->granted[$name] = $mode;
        }
        return $outcome;
    }

    /** @param array<array-key, mixed> $result of the server */
    private function meaning(array $result): string
    {
        return match ($result['status'] ?? null) {
            'ok' => isset($result['already']) ? 'already' : 'granted',
            'timeout' => 'timeout',
            'deadlock' => 'deadlock',
            'notFound' => 'not-held',
            'invalid' => 'invalid ' . ($result['reason'] ?? ''),
            default => 'refused ' . json_encode($result),
        };
    }

    private function release(string $name): string
    {
        $isFree = $this->client->unlock($name);
        // It says yes also if there was nothing to release. A program knows what it had.
        $wasGranted = isset($this->granted[$name]);
        unset($this->granted[$name]);
        return $isFree ? ($wasGranted ? 'ok' : 'not-held') : $this->lost();
    }

    /** To know that it holds a lock, a program asks for it again. */
    private function check(string $name): string
    {
        $mode = $this->granted[$name] ?? null;
        if ($mode !== null && $this->asksAgain($name, $mode)) {
            return 'held';
        }
        return $this->client->poll() ? 'not-held' : $this->lost();
    }

    /** @param array<string, int|string> $mode in which it was granted */
    private function asksAgain(string $name, array $mode): bool
    {
        $options = ['timeLimit' => 0];
        if ($mode === ['mode' => 'exclusive']) {
            return $this->client->lock($name, $options);
        }
        $result = $this->client->rpc('lock', $this->named($name) + $mode, $options);
        return ($result['status'] ?? null) === 'ok';
    }

    private function lost(): string
    {
        $error = $this->client->error();
        return (str_contains($error, 'the parent process') ? 'forked ' : 'lost ') . $error;
    }

    private function notice(float $seconds): string
    {
        for ($end = hrtime(true) + $seconds * 1e9; hrtime(true) < $end; usleep(20000)) {
            if (!$this->client->poll()) {
                return $this->lost();
            }
        }
        return 'alive';
    }

    private function inspect(string $name): string
    {
        $state = $this->client->rpc('inspect', $this->named($name));
        if ($state === false) {
            return $this->lost();
        }
        if (($state['status'] ?? null) !== 'ok') {
            return 'refused ' . json_encode($state);
        }
        return $state['mode'] === null ? 'free' : "{$state['mode']} {$state['waiters']}";
    }

    /** @return array<string, string> */
    private function named(string $name): array
    {
        return preg_match('//u', $name) === 1 ? ['lockName' => $name] : ['lockNameHex' => bin2hex($name)];
    }

    /** The class has no method for this: its locks are free when the object is destroyed. */
    public function close(): string
    {
        $this->client = null;
        $this->granted = [];
        return 'ok';
    }
}

$can = 'message unix wait limit-wait shared limit convert check inspect fork notice bounded deadlock names zero-byte';
$driver = new Driver();
converse($can, [
    'tls' => 'it speaks the protocol as it was',
    'resume' => 'it speaks the protocol as it was',
    'secret' => 'it is sent only by a hello, which the class makes by itself',
    'several' => 'it has one server',
    'set' => 'it unlocks one name at a time',
    'token' => 'lock() does not return it',
    'orphaned' => 'lock() does not return it',
    'background' => 'PHP has no threads, and a call ends before the next one begins',
    'cancel' => 'only a signal handler can end a call, by throwing an exception',
], $driver->carryOut(...), $driver->close(...));
