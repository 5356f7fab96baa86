<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Closure;
use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\LockdException;
use Lockd\Lock;
use Lockd\Message\MessageClient;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Meanwhile;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Storm;
use Lockd\Tests\Support\Swallower;
use PHPUnit\Framework\TestCase;
use RuntimeException;
use Throwable;

/** Signal handlers, and the callback, while a client waits for a server and for a lock. */
final class PatientSignalsTest extends TestCase
{
    private const NOWHERE = 'unix:/nonexistent/lockd.sock';

    /** Far longer than any signal takes, and shorter than what would be waited for without one. */
    private const SOON = 10.0;

    private string $ignoresArguments;

    protected function setUp(): void
    {
        // So that a trace refers to all that a call was given.
        $this->ignoresArguments = (string) ini_set('zend.exception_ignore_args', '0');
    }

    protected function tearDown(): void
    {
        ini_set('zend.exception_ignore_args', $this->ignoresArguments);
    }

    /** @return iterable<string, array{Closure}> */
    public static function transports(): iterable
    {
        yield 'streams' => [Client::connectAndAcquire(...)];
        yield 'FFI' => [Client::connectAndAcquireByFfi(...)];
    }

    /** @return iterable<string, array{Closure, bool}> */
    public static function handlers(): iterable
    {
        foreach (self::transports() as $name => [$acquire]) {
            yield "$name, async" => [$acquire, true];
            yield "$name, dispatched" => [$acquire, false];
        }
    }

    /** What a call throws, which must not take long. */
    private static function thrown(Closure $call): Throwable
    {
        $start = microtime(true);
        try {
            $call();
        } catch (Throwable $e) {
            self::assertLessThan(self::SOON, microtime(true) - $start);
            return $e;
        }
        self::fail('nothing was thrown');
    }

    /** Waits until the server has no connections besides those of the test. */
    private static function awaitConnections(Server $server, int $count): void
    {
        $watcher = MessageClient::connect($server->unix());
        Deadline::until('no other connection is left', static fn (): bool =>
            $watcher->rpc('stats')['connections'] === $count + 1);
    }

    /** @dataProvider handlers */
    public function testAHandlerThatThrowsEndsAPause(Closure $acquire, bool $async): void
    {
        $enough = new RuntimeException('enough');
        $meanwhile = Meanwhile::does(static fn () => throw $enough, $async);
        self::assertSame($enough, self::thrown(static fn () => $acquire(self::NOWHERE, 'a')));
    }

    /** @dataProvider handlers */
    public function testAHandlerThatThrowsEndsTheWaitAndTheConnection(Closure $acquire, bool $async): void
    {
        $server = new Server();
        $held = Client::connect($server->tcp())->acquire('a');
        $meanwhile = Meanwhile::does(static fn () => throw new RuntimeException('enough'), $async);
        // The exception, with the trace and its arguments, is kept until the end.
        $thrown = self::thrown(static fn () => $acquire($server->tcp(), 'a'));
        self::awaitConnections($server, 1);
        self::assertSame('enough', $thrown->getMessage());
        self::assertTrue($held?->isHeld());
    }

    /** @dataProvider transports */
    public function testAHandlerRunsAndTheWaitGoesOn(Closure $acquire): void
    {
        $server = new Server();
        $held = Client::connect($server->tcp())->acquire('a');
        $meanwhile = Meanwhile::does(static fn () => $held?->release());
        self::assertTrue($acquire($server->tcp(), 'a', self::SOON)?->isHeld());
        unset($meanwhile);
        $runs = 0;
        $meanwhile = Meanwhile::does(static function () use (&$runs): void {
            $runs++;
        });
        $thrown = self::thrown(static fn () => $acquire(self::NOWHERE, 'a', 0.5));
        self::assertInstanceOf(ConnectException::class, $thrown);
        self::assertSame(1, $runs);
    }

    /** @dataProvider transports */
    public function testAnExceptionOfThisPackageFromAHandlerOrTheCallbackEndsTheWait(Closure $acquire): void
    {
        $server = new Server();
        $held = Client::connect($server->tcp())->acquire('a');
        // It is about another connection, of which the handler has learned.
        $lost = new ConnectionLostException('another connection');
        foreach ([self::NOWHERE => 0, $server->tcp() => 1] as $url => $connections) {
            $meanwhile = Meanwhile::does(static fn () => throw $lost);
            self::assertSame($lost, self::thrown(static fn () => $acquire($url, 'a')));
            unset($meanwhile);
            $absent = new ConnectException('another server', isAbsence: true);
            $calls = 0;
            $onWait = static function () use ($absent, &$calls): void {
                $calls++;
                throw $absent;
            };
            self::assertSame($absent, self::thrown(static fn () => $acquire($url, 'a', onWait: $onWait)));
            self::assertSame(1, $calls);
        }
        self::awaitConnections($server, 1);
        self::assertTrue($held?->isHeld());
    }

    /** @dataProvider transports */
    public function testAHandlerThatThrowsEndsTheWaitAfterTheAttemptToConnect(Closure $acquire): void
    {
        $server = new Server();
        $swallower = new Swallower('127.0.0.2', $server->port());
        $enough = new RuntimeException('enough');
        $meanwhile = Meanwhile::does(static fn () => throw $enough);
        self::assertSame($enough, self::thrown(static fn () =>
            $acquire("tcp://127.0.0.2:{$server->port()}", 'a', connectTimeout: 0.6)));
    }

    public function testAHandlerThatThrowsEndsTheWaitForAServerThatDoesNotAnswer(): void
    {
        $server = new Server();
        $server->pause();
        $meanwhile = Meanwhile::does(static fn () => throw new RuntimeException('enough'));
        $thrown = self::thrown(static fn () =>
            Client::connectAndAcquire($server->tcp(), 'a', connectTimeout: 60.0));
        $server->resume();
        self::awaitConnections($server, 0);
        self::assertSame('enough', $thrown->getMessage());
    }

    public function testSignalHandlersThatThrowAtAnyMomentLeaveNoLockAndNoConnection(): void
    {
        $server = new Server();
        $watcher = Client::connect($server->tcp());
        $storm = new Storm();
        $struck = 0;
        try {
            $call = static fn () => Client::connectAndAcquire($server->tcp(), 'a', 30.0);
            for ($time = 0; $time < 300; $time++) {
                $struck += (int) $storm->strikes($call, $time % 15 + 1);
                Deadline::until('it is free', static fn (): bool => !$watcher->inspect('a')->isHeld());
            }
        } finally {
            $storm->end();
        }
        self::assertGreaterThan(0, $struck);
        self::awaitConnections($server, 1);
    }

    /** @return iterable<string, array{Closure}> */
    public static function connects(): iterable
    {
        yield 'streams' => [static fn (string $url) => Client::connect($url, resume: true)];
        yield 'FFI' => [static fn (string $url) => Client::connectByFfi($url, resume: true)];
        yield 'streams, patient' => [static fn (string $url) => Client::connectAndAcquire($url, 'a', resume: true)];
    }

    /** @dataProvider connects */
    public function testSignalHandlersThatThrowWhileItConnectsHarmNothing(Closure $connect): void
    {
        $server = new Server();
        $url = $server->tcp() . ',' . $server->unix();
        $storm = new Storm();
        $struck = 0;
        try {
            for ($time = 0; $time < 300; $time++) {
                $struck += (int) $storm->strikes(static fn () => $connect($url), $time % 30 + 1);
                self::assertSame($server->tcp() . ',' . $server->unix(), $url);
            }
        } finally {
            $storm->end();
        }
        self::assertGreaterThan(0, $struck);
        // PHP itself loses a return value once in tens of thousands of times.
        $watcher = MessageClient::connect($server->unix());
        Deadline::until('hardly a connection is left', static fn (): bool =>
            $watcher->rpc('stats')['connections'] <= 3);
    }

    /** @dataProvider transports */
    public function testAForkedChildCanNeitherUseNorFreeTheLock(Closure $acquire): void
    {
        $server = new Server();
        $lock = $acquire($server->tcp(), 'a');
        $child = Child::start(static function (callable $say) use (&$lock, $acquire, $server): void {
            try {
                $lock?->release();
            } catch (LockdException $e) {
                $say(get_class($e));
            }
            $lock = null;
            $say($acquire($server->tcp(), 'a', 0.0) === null ? 'busy' : 'free');
        });
        self::assertSame('Lockd\Exception\ForkedException', $child->hear());
        self::assertSame('busy', $child->hear());
        self::assertInstanceOf(Lock::class, $lock);
        self::assertTrue($lock->isHeld());
    }
}
