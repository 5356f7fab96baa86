<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Generator;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\NotHeldException;
use Lockd\Exception\RefusedException;
use Lockd\Inspection;
use Lockd\Internal\Deadline;
use Lockd\Internal\Signals;
use Lockd\ListedLock;
use Lockd\Message\Address;
use Lockd\Message\Connection;
use Throwable;

/**
 * Locks on a server, or on several over which the names are spread, by the `message` protocol and with nothing but
 * PHP's own streams. The server keeps the time limits.
 *
 * @internal
 */
final class StreamTransport implements Transport
{
    /** The longest time, in seconds, that a signal which came at the wrong moment has to wait for its handler. */
    private const SLICE = 0.25;

    private const PAGE = 500;

    /**
     * @param non-empty-array<string, Connection> $connections by address
     * @param array<string, true> $unwatched those that the kernel does not look after
     */
    private function __construct(private readonly array $connections, private readonly array $unwatched)
    {
    }

    /** @throws ConnectException */
    public static function connect(string $urls, ?string $owner, float $timeout): self
    {
        $deadline = Deadline::in($timeout);
        $connections = [];
        $unwatched = [];
        foreach (Address::parseList($urls) as $text => $address) {
            $connection = Connection::open($address, max(0.001, $deadline->remaining()), $timeout);
            if (!self::greet($connection, $owner)) {
                $unwatched[$text] = true;
            }
            $connections[$text] = $connection;
        }
        return new self($connections, $unwatched);
    }

    /** Whether the kernel will find out that the server's machine is gone. */
    private static function greet(Connection $connection, ?string $owner): bool
    {
        try {
            $hello = $connection->send('hello', ['client' => 'lockd-php', 'version' => \Lockd\Client::VERSION]);
            if ($owner !== null) {
                // The server may be set up not to keep names: then it has none.
                $connection->forget($connection->send('identify', ['name' => $owner]));
            }
            $answer = $connection->await($hello);
        } catch (ConnectionLostException $e) {
            throw new ConnectException($e->getMessage(), 0, $e);
        }
        $deadPeerTimeout = $answer['keepalive']['deadPeerTimeout'] ?? null;
        if (($answer['status'] ?? null) !== 'ok' || !is_int($deadPeerTimeout)) {
            $connection->end();
            throw new ConnectException("what listens at {$connection->address->text} is no lockd");
        }
        return $connection->keepAlive($deadPeerTimeout);
    }

    public function acquire(string $name, bool $shared, Deadline $deadline): ?Grant
    {
        $withdraw = fn (Connection $connection) => $connection->ask('unlock', self::named($name));
        $result = $this->await('lock', $name, $shared, $deadline, $withdraw);
        if (($result['already'] ?? false) === true) {
            throw new AlreadyHeldException("this client holds \"$name\" already");
        }
        return $result === null ? null : $this->grant($name, $result);
    }

    public function convert(string $name, bool $shared, Deadline $deadline): ?Grant
    {
        $back = ['mode' => self::mode(!$shared)] + self::named($name);
        $withdraw = fn (Connection $connection) => $connection->ask('convert', $back);
        $result = $this->await('convert', $name, $shared, $deadline, $withdraw);
        return $result === null ? null : $this->grant($name, $result);
    }

    /**
     * Sends a request that may wait, and waits with it.
     *
     * @param callable(Connection): mixed $withdraw what undoes it
     * @return ?array<mixed> null: the time limit was over
     */
    private function await(
        string $command,
        string $name,
        bool $shared,
        Deadline $deadline,
        callable $withdraw,
    ): ?array {
        $connection = $this->of($name);
        $parameters = ['mode' => self::mode($shared)] + self::named($name);
        if (is_finite($deadline->remaining())) {
            $parameters['timeLimit'] = $deadline->remaining();
        }
        $id = $connection->send($command, $parameters);
        try {
            while (($result = $connection->answer($id)) === null) {
                Signals::dispatch();
                $this->listen($connection, $deadline);
            }
        } catch (ConnectionLostException | ForkedException $e) {
            throw $e;
        } catch (Throwable $e) {
            // A signal's handler has thrown: nobody will ever hear of this request.
            $this->takeBack($connection, $id, $withdraw);
            throw $e;
        }
        return self::okOrTimeout($result, $name);
    }

    private function listen(Connection $connection, Deadline $deadline): void
    {
        $connection->listen(min(self::SLICE, $deadline->remaining() + 0.01));
        if ($deadline->isOver() && $connection->silence() > $connection->timeout) {
            // By now it should have said that the time is over.
            $connection->ask('ping', []);
        }
        if (isset($this->unwatched[$connection->address->text]) && $connection->silence() > $connection->timeout) {
            $connection->ask('ping', []);
        }
    }

    /** @param callable(Connection): mixed $withdraw */
    private function takeBack(Connection $connection, int $id, callable $withdraw): void
    {
        try {
            $connection->ask('cancel', ['id' => $id]);
            // However it has ended, its answer came first.
            $result = $connection->answer($id);
            if (($result['status'] ?? null) === 'ok') {
                $withdraw($connection);
            }
        } catch (ConnectionLostException | ForkedException) {
            // Then it is taken back, too.
        }
        $connection->forget($id);
    }

    public function release(string $name): bool
    {
        $result = $this->of($name)->ask('unlock', self::named($name));
        return match ($result['status'] ?? null) {
            'ok' => true,
            'notFound' => false,
            default => throw self::failure($result, $name),
        };
    }

    public function holds(string $name): bool
    {
        // A lock is held for as long as its connection stands, and not a moment longer.
        try {
            return ($this->of($name)->ask('ping', [])['status'] ?? null) === 'ok';
        } catch (ConnectionLostException) {
            return false;
        }
    }

    public function inspect(string $name): Inspection
    {
        $result = self::ok($this->of($name)->ask('inspect', self::named($name)), $name);
        return new Inspection(
            $result['mode'] ?? null,
            (int) ($result['holders'] ?? 0),
            (int) ($result['waiters'] ?? 0),
            ($result['orphaned'] ?? false) === true,
        );
    }

    public function list(string $prefix): Generator
    {
        $lists = [];
        foreach ($this->connections as $connection) {
            $lists[] = self::listOf($connection, $prefix);
        }
        while (true) {
            $lists = array_values(array_filter($lists, static fn (Generator $list): bool => $list->valid()));
            if ($lists === []) {
                return;
            }
            usort($lists, static fn (Generator $one, Generator $other): int =>
                strcmp($one->current()->name, $other->current()->name));
            yield $lists[0]->current();
            $lists[0]->next();
        }
    }

    /** @return Generator<int, ListedLock> */
    private static function listOf(Connection $connection, string $prefix): Generator
    {
        $parameters = ['limit' => self::PAGE] + self::key('prefix', $prefix);
        do {
            $page = Signals::deferred(static fn (): array => $connection->ask('list', $parameters));
            $page = self::ok($page, $prefix);
            foreach ($page['locks'] ?? [] as $entry) {
                $lock = ListedLock::fromMessage($entry);
                yield $lock;
            }
            if (isset($lock)) {
                $parameters = ['limit' => self::PAGE] + self::key('prefix', $prefix) + self::key('after', $lock->name);
            }
        } while (($page['more'] ?? false) === true);
    }

    public function stands(): bool
    {
        foreach ($this->connections as $connection) {
            if (!$connection->stands()) {
                return false;
            }
        }
        return true;
    }

    public function close(): void
    {
        foreach ($this->connections as $connection) {
            $connection->end();
        }
    }

    /** The server that a name belongs to: the one with the highest score, as docs/protocol.md has it. */
    private function of(string $name): Connection
    {
        $best = null;
        foreach ($this->connections as $server => $connection) {
            // Of the same length and in lower case, so they compare as the numbers they write.
            $score = hash('fnv1a64', hash('fnv1a64', $server . "\0" . $name, true));
            $wins = $best === null || strcmp($score, $best[0]) > 0
                || ($score === $best[0] && strcmp((string) $server, $best[1]->address->text) < 0);
            if ($wins) {
                $best = [$score, $connection];
            }
        }
        assert($best !== null);
        return $best[1];
    }

    /** @return array<string, string> */
    private static function named(string $name): array
    {
        return self::key('lockName', $name);
    }

    /** @return array<string, string> */
    private static function key(string $key, string $value): array
    {
        // JSON has no bytes.
        return preg_match('//u', $value) === 1 ? [$key => $value] : [$key . 'Hex' => bin2hex($value)];
    }

    private static function mode(bool $shared): string
    {
        return $shared ? 'shared' : 'exclusive';
    }

    /** @param array<mixed> $result */
    private function grant(string $name, array $result): Grant
    {
        $token = $result['token'] ?? null;
        if (!is_int($token) || $token <= 0) {
            // The server may believe that it has granted something.
            throw $this->of($name)->lose('a grant without a fencing token');
        }
        return new Grant($token, ($result['orphaned'] ?? false) === true);
    }

    /**
     * @param array<mixed> $result
     * @return array<mixed>
     */
    private static function ok(array $result, string $name): array
    {
        return ($result['status'] ?? null) === 'ok' ? $result : throw self::failure($result, $name);
    }

    /**
     * @param array<mixed> $result
     * @return ?array<mixed>
     */
    private static function okOrTimeout(array $result, string $name): ?array
    {
        return ($result['status'] ?? null) === 'timeout' ? null : self::ok($result, $name);
    }

    /** @param array<mixed> $result */
    private static function failure(array $result, string $name): Throwable
    {
        $reason = $result['reason'] ?? null;
        $reason = is_string($reason) ? $reason : '';
        return match ($result['status'] ?? null) {
            'deadlock' => new DeadlockException(
                "to wait for \"$name\" would be a deadlock: " . implode(' > ', (array) ($result['circle'] ?? [])),
                array_values(array_filter((array) ($result['circle'] ?? []), 'is_string')),
            ),
            'invalid' => new InvalidArgumentException($reason),
            'notFound' => new NotHeldException("this client does not hold \"$name\""),
            'refused' => new RefusedException($reason),
            // What is not known is no yes.
            default => new RefusedException('an unknown answer: ' . json_encode($result)),
        };
    }
}
