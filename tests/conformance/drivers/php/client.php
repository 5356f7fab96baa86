<?php

/**
 * Drives the PHP package. The argument is the transport: `streams`, or `ffi` for liblockd, which
 * the package finds by LOCKD_LIBRARY in the environment.
 */

declare(strict_types=1);

namespace Conformance;

use Lockd\Client;
use Lockd\Exception as E;
use Lockd\Lock;
use Lockd\SessionState;

require __DIR__ . '/conformance.php';
require packageDirectory() . '/autoload.php';

final class Driver
{
    private ?Client $client = null;
    /** @var array<array-key, Lock> the locks that were granted, by name */
    private array $locks = [];

    public function __construct(private readonly bool $isFfi)
    {
    }

    /** @param list<string> $words */
    public function carryOut(string $command, array $words): string
    {
        try {
            return match ($command) {
                'connect' => $this->connect(nameOf($words[0]), (float) secondsOf($words[1]), array_slice($words, 2)),
                'acquire' => $this->acquire(nameOf($words[0]), $this->modeOf($words[1]), secondsOf($words[2])),
                'convert' => $this->convert(nameOf($words[0]), $this->modeOf($words[1]), secondsOf($words[2])),
                'release' => $this->release(nameOf($words[0])),
                'check' => $this->check(nameOf($words[0])),
                'inspect' => $this->inspect(nameOf($words[0])),
                'notice' => $this->notice((float) secondsOf($words[0])),
                'state' => $this->known($this->client->state()),
                'certain' => $this->known($this->client->waitCertain((float) secondsOf($words[0]))),
                'close' => $this->close(),
                default => 'error this command is not known',
            };
        } catch (E\AlreadyHeldException) {
            return 'already';
        } catch (E\DeadlockException) {
            return 'deadlock';
        } catch (E\NotHeldException) {
            return 'not-held';
        } catch (E\TimeoutException) {
            return 'timeout';
        } catch (E\ConnectException | E\LibraryException $problem) {
            return "failed {$problem->getMessage()}";
        } catch (E\DoubtException $problem) {
            return "doubt {$problem->getMessage()}";
        } catch (E\ConnectionLostException $problem) {
            return "lost {$problem->getMessage()}";
        } catch (E\RefusedException $problem) {
            return "refused {$problem->getMessage()}";
        } catch (E\ForkedException $problem) {
            return "forked {$problem->getMessage()}";
        } catch (E\InvalidArgumentException $problem) {
            return "invalid {$problem->getMessage()}";
        }
    }

    /** @param list<string> $urls */
    private function connect(string $owner, float $timeout, array $urls): string
    {
        $ca = getenv('CONFORMANCE_CA');
        if ($ca !== false) {
            $trusting = static fn (string $url): string => match (true) {
                !str_starts_with($url, 'tls://') => $url,
                str_contains($url, '?') => "$url&ca=$ca",
                default => "$url?ca=$ca",
            };
            $urls = array_map($trusting, $urls);
        }
        $secret = getenv('CONFORMANCE_SECRET');
        $file = $secret === false ? false : tmpfile();
        if ($file !== false) {
            fwrite($file, (string) $secret);
            putenv('LOCKD_AUTH_TOKEN_FILE=' . stream_get_meta_data($file)['uri']);
        }
        $url = implode(',', $urls);
        $this->locks = [];
        $this->client = null;
        $this->client = $this->isFfi
            ? Client::connectByFfi($url, $owner, $timeout)
            : Client::connect($url, $owner, $timeout);
        return 'ok';
    }

    /**
     * The arguments of a call that takes a mode.
     *
     * @return array{shared?: true, atMost?: int}
     */
    private function modeOf(string $word): array
    {
        return match (true) {
            $word === 'exclusive' => [],
            $word === 'shared' => ['shared' => true],
            default => ['atMost' => (int) substr($word, strlen('at-most:'))],
        };
    }

    /** @param array{shared?: true, atMost?: int} $mode */
    private function acquire(string $name, array $mode, ?float $timeout): string
    {
        $lock = $this->client->acquire($name, $timeout, ...$mode);
        if ($lock === null) {
            return 'timeout';
        }
        $this->locks[$name] = $lock;
        return $this->granted($lock);
    }

    /** @param array{shared?: true, atMost?: int} $mode */
    private function convert(string $name, array $mode, ?float $timeout): string
    {
        $lock = $this->locks[$name] ?? null;
        if ($lock === null) {
            return $this->notHeld();
        }
        return $lock->convert(...$mode, timeout: $timeout) ? $this->granted($lock) : 'timeout';
    }

    private function granted(Lock $lock): string
    {
        try {
            // FFI asks the server. If that fails, the lock was granted all the same.
            $orphaned = $lock->orphaned() ? ' orphaned' : '';
        } catch (E\LockdException) {
            $orphaned = '';
        }
        return "granted token={$lock->token()}$orphaned";
    }

    private function release(string $name): string
    {
        $lock = $this->locks[$name] ?? null;
        if ($lock === null) {
            return $this->notHeld();
        }
        $isReleased = $lock->release();
        unset($this->locks[$name]);
        return $isReleased ? 'ok' : 'not-held';
    }

    /** The package has no other answer that a program may rely on: isHeld() asks the server. */
    private function check(string $name): string
    {
        $lock = $this->locks[$name] ?? null;
        // The second time if it was in doubt, and has resumed meanwhile.
        if ($lock?->isHeld() || ($lock?->state() === SessionState::Alive && $lock->isHeld())) {
            return 'held';
        }
        return $this->notHeld();
    }

    /** Why it does not hold a lock, as far as it knows. */
    private function notHeld(): string
    {
        $known = $this->known($this->client->state());
        return $known === 'alive' ? 'not-held' : $known;
    }

    private function known(SessionState $state): string
    {
        return match ($state) {
            SessionState::Alive => 'alive',
            SessionState::InDoubt => 'doubt the connection has ended',
            SessionState::Lost => 'lost the session has ended',
        };
    }

    private function inspect(string $name): string
    {
        $state = $this->client->inspect($name);
        return $state->isHeld() ? "$state->mode $state->waiters" : 'free';
    }

    private function notice(float $seconds): string
    {
        for ($end = hrtime(true) + $seconds * 1e9; hrtime(true) < $end; usleep(20000)) {
            if ($this->client->state() === SessionState::Lost) {
                return 'lost the session has ended';
            }
        }
        return 'alive';
    }

    private function close(): string
    {
        $this->client->close();
        return 'ok';
    }
}

$transport = $argv[1] ?? 'streams';
$can = 'message unix secret several wait limit-wait shared limit convert token orphaned check inspect fork notice'
    . ' bounded deadlock names resume';
$cannot = [
    'set' => 'it locks one name at a time',
    'zero-byte' => 'it refuses them, since they would end a name in C',
    'background' => 'PHP has no threads, and a call ends before the next one begins',
    'cancel' => 'only a signal handler can end a call, by throwing an exception',
];
if ($transport === 'ffi') {
    $can .= ' tls';
} else {
    $cannot['tls'] = 'PHP\'s streams are used without TLS; liblockd has it';
}
$driver = new Driver($transport === 'ffi');
converse($can, $cannot, $driver->carryOut(...), Client::closeInherited(...));
