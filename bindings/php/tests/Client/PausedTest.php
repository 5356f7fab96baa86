<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Closure;
use lockc;
use Lockd\Client;
use Lockd\Exception\ConnectionLostException;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Message\MessageClient;
use Lockd\Session\LockingSessionHandler;
use Lockd\Symfony\LockdStore;
use Lockd\Tests\Session\FileHandler;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Unread;
use Lockd\WordPress\Locks;
use LogicException;
use PHPUnit\Framework\TestCase;
use pkLockClient;
use Symfony\Component\Lock\Exception\LockStorageException;
use Symfony\Component\Lock\Key;

require_once __DIR__ . '/../../compat/lockc.php';
require_once __DIR__ . '/../../compat/pkLockClient.php';
require_once __DIR__ . '/../WordPress/stubs.php';

/**
 * A process is stopped before it has read the server's grant. While it is stopped, its connection
 * ends and another client gets the lock. When the process continues, that grant is the first thing
 * that it reads, and it must not count.
 */
final class PausedTest extends TestCase
{
    private Server $server;

    protected function setUp(): void
    {
        $this->server = new Server(['--allow-kick']);
    }

    protected function tearDown(): void
    {
        unset($this->server);
    }

    /**
     * @return array<string, callable(Server, string): void> ways to end the connection with the
     *     given address
     */
    private static function endings(): array
    {
        return [
            'a kick' => static function (Server $server, string $address): void {
                $kick = MessageClient::connect($server->tcp())->rpc('kick', ['address' => $address]);
                self::assertSame(['status' => 'ok'], $kick);
            },
            'a clean restart of the server' => static fn (Server $server) => $server->restartCleanly(),
            'a kill of the server' => static fn (Server $server) => $server->restart(),
        ];
    }

    /**
     * Clients of every kind that wait for `x`. Each function connects and returns another function,
     * which waits and returns whether it got the lock.
     *
     * @return array<string, array{0: Closure(Server): (Closure(): bool), 1: string, 2?: string}>
     *     with the expected answer, and the name of the lock if it is not `x`
     */
    private static function waiters(): array
    {
        $pkLockClient = static fn (Server $server): pkLockClient =>
            new pkLockClient(['host' => $server->host(), 'port' => $server->port()]);
        return [
            'streams' => [static function (Server $server): Closure {
                $client = Client::connect($server->tcp());
                return static fn (): bool => $client->acquire('x', 60.0) !== null;
            }, ConnectionLostException::class],
            'streams, by synchronized' => [static function (Server $server): Closure {
                $client = Client::connect($server->tcp());
                $body = static fn () => throw new LogicException('the body has run');
                return static fn (): bool => $client->synchronized('x', $body, 60.0);
            }, ConnectionLostException::class],
            'FFI' => [static function (Server $server): Closure {
                $client = Client::connectByFfi($server->tcp());
                return static fn (): bool => $client->acquire('x', 60.0) !== null;
            }, ConnectionLostException::class],
            'pkLockClient' => [static function (Server $server) use ($pkLockClient): Closure {
                $client = $pkLockClient($server);
                return static fn (): bool => @$client->lock('x', ['timeLimit' => 60]);
            }, 'false'],
            'pkLockClient, by rpc' => [static function (Server $server) use ($pkLockClient): Closure {
                $client = $pkLockClient($server);
                return static fn (): bool => @$client->rpc('lock', ['lockName' => 'x'], ['timeLimit' => 60]) !== false;
            }, 'false'],
            'MessageClient' => [static function (Server $server): Closure {
                $client = MessageClient::connect($server->tcp());
                return static fn (): bool => $client->rpc('lock', ['lockName' => 'x'])['status'] === 'ok';
            }, ConnectionLostException::class],
            'Symfony' => [static function (Server $server): Closure {
                $store = new LockdStore(Client::connect($server->tcp()));
                $key = new Key('x');
                return static fn (): bool => $store->waitAndSave($key) ?? true;
            }, LockStorageException::class],
            'Laravel' => [static function (Server $server): Closure {
                $provider = new LockdLockProvider(Client::connect($server->tcp()));
                return static fn (): bool => $provider->lock('x')->block(60);
            }, ConnectionLostException::class],
            'WordPress' => [static function (Server $server): Closure {
                $locks = new Locks(Client::connect($server->tcp()), static fn (): string => '');
                ini_set('error_log', '/dev/null');
                return static fn (): bool => $locks->once('x', static fn () => null, 60.0);
            }, 'false'],
            'a session' => [static function (Server $server): Closure {
                $handler = new LockingSessionHandler(new FileHandler('/nonexistent'), $server->tcp(), 60.0);
                return static fn (): bool => @$handler->read('id') !== false;
            }, 'false', 'session/' . hash('sha256', 'id')],
        ];
    }

    /**
     * @return iterable<string, array{Closure(Server): (Closure(): bool), string, callable, string}>
     */
    public static function waitersAndEndings(): iterable
    {
        foreach (self::waiters() as $client => $waiter) {
            foreach (self::endings() as $ending => $end) {
                yield "$client: $ending" => [$waiter[0], $waiter[1], $end, $waiter[2] ?? 'x'];
            }
        }
    }

    /**
     * @dataProvider waitersAndEndings
     * @param Closure(Server): (Closure(): bool) $connect
     * @param callable(Server, string): void $end
     */
    public function testAGrantDoesNotCountIfTheConnectionHasEndedSince(
        Closure $connect,
        string $right,
        callable $end,
        string $name,
    ): void {
        $holder = Client::connect($this->server->tcp());
        $lock = $holder->acquire($name);
        $child = Child::start(function (callable $say) use ($connect): void {
            $wait = $connect($this->server);
            $say(json_encode($wait()));
        });
        Deadline::until('the child waits', static fn (): bool => $holder->inspect($name)->waiters === 1);
        $child->pause();
        $lock?->release();
        $this->assertAnswer($right, $child, $end, $this->server->port(), $name);
    }

    /**
     * The same for a shared lock with another holder, which is to become exclusive.
     *
     * @return iterable<string, array{string, callable(Server, string): void}>
     */
    public static function convertersAndEndings(): iterable
    {
        foreach (['connect', 'connectByFfi'] as $connect) {
            foreach (self::endings() as $ending => $end) {
                yield "$connect: $ending" => [$connect, $end];
            }
        }
    }

    /**
     * @dataProvider convertersAndEndings
     * @param callable(Server, string): void $end
     */
    public function testAConversionDoesNotCountIfTheConnectionHasEndedSince(string $connect, callable $end): void
    {
        $holder = Client::connect($this->server->tcp());
        $lock = $holder->acquire('x', 0.0, true);
        $child = Child::start(function (callable $say) use ($connect): void {
            $shared = Client::$connect($this->server->tcp())->acquire('x', 0.0, true);
            $say(json_encode($shared?->convert(false, 60.0)));
        });
        Deadline::until('the child waits', static fn (): bool => $holder->inspect('x')->waiters === 1);
        $child->pause();
        $lock?->release();
        $this->assertAnswer(ConnectionLostException::class, $child, $end, $this->server->port());
    }

    /**
     * Requests that the server answers at once, from clients of every kind. Each function connects
     * and returns another function, which sends the request and returns whether the client believes
     * that it holds `x`.
     *
     * @return array<string, array{0: Closure(Server): (Closure(): bool), 1: string, 2?: string}>
     *     with the expected answer, and the protocol if it is not `message`
     */
    private static function askers(): array
    {
        $asks = [];
        foreach (['connect', 'connectByFfi'] as $connect) {
            $asks["$connect: acquire"] = [static function (Server $server) use ($connect): Closure {
                $client = Client::$connect($server->tcp());
                return static fn (): bool => $client->acquire('x', 0.0) !== null;
            }, ConnectionLostException::class];
            $asks["$connect: isHeld"] = [static function (Server $server) use ($connect): Closure {
                $lock = Client::$connect($server->tcp())->acquire('x', 0.0);
                return static fn (): bool => $lock?->isHeld() ?? true;
            }, 'false'];
            $asks["$connect: inspect"] = [static function (Server $server) use ($connect): Closure {
                $client = Client::$connect($server->tcp());
                $lock = $client->acquire('x', 0.0);
                return static fn (): bool => $lock !== null && $client->inspect('x')->mode === 'exclusive';
            }, ConnectionLostException::class];
            $asks["$connect: make it shared"] = [static function (Server $server) use ($connect): Closure {
                $lock = Client::$connect($server->tcp())->acquire('x', 0.0);
                return static fn (): bool => $lock?->convert(true) ?? true;
            }, ConnectionLostException::class];
        }
        foreach (['lockd', 'glockd'] as $protocol) {
            $asks["lockc, $protocol"] = [static function (Server $server) use ($protocol): Closure {
                $client = new lockc($server->host(), $server->port($protocol));
                $client->is_locked('y');
                return static fn (): bool => (bool) @$client->lock('x');
            }, 'false', $protocol];
        }
        $asks['pkLockClient'] = [static function (Server $server): Closure {
            $client = new pkLockClient(['host' => $server->host(), 'port' => $server->port()]);
            $client->rpc('ping');
            return static fn (): bool => @$client->lock('x');
        }, 'false'];
        return $asks;
    }

    /**
     * @return iterable<string, array{Closure(Server): (Closure(): bool), string, callable, string}>
     */
    public static function askersAndEndings(): iterable
    {
        foreach (self::askers() as $client => $asker) {
            foreach (self::endings() as $ending => $end) {
                yield "$client: $ending" => [$asker[0], $asker[1], $end, $asker[2] ?? 'message'];
            }
        }
    }

    /**
     * @dataProvider askersAndEndings
     * @param Closure(Server): (Closure(): bool) $connect
     * @param callable(Server, string): void $end
     */
    public function testAnAnswerDoesNotCountIfTheConnectionHasEndedSince(
        Closure $connect,
        string $right,
        callable $end,
        string $protocol,
    ): void {
        $child = Child::start(function (callable $say, callable $pause) use ($connect): void {
            $ask = $connect($this->server);
            $say('connected');
            $pause();
            $say(json_encode($ask()));
        });
        self::assertSame('connected', $child->hear());
        $this->server->pause();
        $child->goOn();
        $port = $this->server->port($protocol);
        Unread::byServer($port);
        $child->pause();
        $this->server->resume();
        $this->assertAnswer($right, $child, $end, $port);
    }

    /** @param callable(Server, string): void $end */
    private function assertAnswer(
        string $right,
        Child $child,
        callable $end,
        int $port,
        string $name = 'x',
    ): void {
        $end($this->server, Unread::byClient($port));
        $other = Client::connect($this->server->tcp())->acquire($name, 30.0);
        self::assertNotNull($other);
        $child->resume();
        self::assertSame($right, strtok($child->hear(), ':'));
        self::assertTrue($other->isHeld());
    }
}
