<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Closure;
use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Lock;
use Lockd\Message\MessageClient;
use Lockd\Message\Rendezvous;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Server;
use Lockd\WaitEvent;
use LogicException;
use PHPUnit\Framework\TestCase;

/** A connection and its lock in one call, which waits for the server too. */
final class PatientTest extends TestCase
{
    private const NOWHERE = 'unix:/nonexistent/lockd.sock';

    /** @return iterable<string, array{Closure}> */
    public static function transports(): iterable
    {
        yield 'streams' => [Client::connectAndAcquire(...)];
        yield 'FFI' => [Client::connectAndAcquireByFfi(...)];
    }

    /** A callback for calls that must not wait. */
    private static function mustNotWait(): Closure
    {
        return static fn (WaitEvent $event) => throw new LogicException("it waits: $event->name");
    }

    /**
     * A child that waits for this lock without limit, and reports each kind of event once, and the
     * grant. It releases the lock when it is told to.
     */
    private static function waiter(Closure $acquire, string $url, string $owner = 'waiter'): Child
    {
        return Child::start(static function (callable $say, callable $pause) use ($acquire, $url, $owner): void {
            $said = [];
            $onWait = static function (WaitEvent $event) use ($say, &$said): void {
                if (!isset($said[$event->name])) {
                    $said[$event->name] = true;
                    $say($event->name);
                }
            };
            $lock = $acquire($url, 'patient', owner: $owner, onWait: $onWait);
            $say($lock instanceof Lock && $lock->isHeld() ? 'held' : 'not held');
            $pause();
            $say($lock?->release() === true ? 'released' : 'not released');
            $pause();
        });
    }

    /** Asserts that this client is the only one that holds the lock or waits for it. */
    private static function assertOnlyHolder(string $owner, Server $server): void
    {
        [$listed] = [...Client::connect($server->tcp())->list('patient')];
        self::assertSame([$owner], array_map(static fn ($party) => $party->owner, $listed->holders));
        self::assertSame([], $listed->waiters);
    }

    /** Waits until the server has no connections besides this one. */
    private static function awaitNoConnections(Server $server): void
    {
        $watcher = MessageClient::connect($server->unix());
        Deadline::until('no other connection is left', static fn (): bool =>
            $watcher->rpc('stats')['connections'] === 1);
    }

    /** @dataProvider transports */
    public function testAServerThatIsNotUpYetIsWaitedFor(Closure $acquire): void
    {
        foreach (['tcp', 'unix'] as $kind) {
            $server = new Server();
            $server->kill();
            $child = self::waiter($acquire, $server->$kind());
            self::assertSame('NoServer', $child->hear());
            $server->startAgain();
            self::assertSame('held', $child->hear());
            self::assertOnlyHolder('waiter', $server);
            $child->goOn();
            self::assertSame('released', $child->hear());
            // The child still has the lock's object, but not its connection.
            self::awaitNoConnections($server);
        }
    }

    /** @dataProvider transports */
    public function testAWaiterOutlivesItsServer(Closure $acquire): void
    {
        foreach (['restart', 'restartCleanly'] as $restart) {
            $server = new Server();
            $held = Client::connect($server->tcp())->acquire('patient');
            $child = self::waiter($acquire, $server->tcp());
            self::assertSame('Waiting', $child->hear());
            $watcher = Client::connect($server->tcp());
            Deadline::until('it waits', static fn (): bool => $watcher->inspect('patient')->waiters === 1);
            $server->$restart();
            self::assertSame(['NoServer', 'held'], [$child->hear(), $child->hear()]);
            self::assertOnlyHolder('waiter', $server);
            self::assertFalse($held?->isHeld());
        }
    }

    /** @dataProvider transports */
    public function testEachOfSeveralWaitersHasItsTurnOnceThroughARestart(Closure $acquire): void
    {
        $server = new Server();
        $held = Client::connect($server->tcp())->acquire('patient');
        $children = [];
        foreach (['a', 'b', 'c'] as $owner) {
            $children[$owner] = self::waiter($acquire, $server->tcp(), $owner);
            self::assertSame('Waiting', $children[$owner]->hear());
        }
        $watcher = Client::connect($server->tcp());
        Deadline::until('all wait', static fn (): bool => $watcher->inspect('patient')->waiters === 3);
        $server->restart();
        foreach ($children as $child) {
            self::assertSame('NoServer', $child->hear());
        }
        $watcher = Client::connect($server->tcp());
        $listed = null;
        while ($children !== []) {
            $others = count($children) - 1;
            Deadline::until('one has it, the others wait', static function () use ($watcher, $others, &$listed): bool {
                [$listed] = [...$watcher->list('patient'), null];
                return count($listed->holders ?? []) === 1 && count($listed->waiters ?? []) === $others;
            });
            $owner = $listed?->holders[0]->owner;
            self::assertArrayHasKey($owner, $children, 'it has had its turn before');
            self::assertSame('held', $children[$owner]->hear());
            $children[$owner]->goOn();
            self::assertSame('released', $children[$owner]->hear());
            unset($children[$owner]);
        }
        unset($watcher);
        self::awaitNoConnections($server);
        self::assertFalse($held?->isHeld());
    }

    /** @dataProvider transports */
    public function testTheTimeLimitIncludesEverything(Closure $acquire): void
    {
        $start = microtime(true);
        $events = [];
        $onWait = static function (WaitEvent $event, ?string $reason) use (&$events): void {
            $events[] = [$event, $reason];
        };
        try {
            $lock = $acquire(self::NOWHERE, 'patient', 0.3, onWait: $onWait);
            self::fail('there is no server');
        } catch (ConnectException $e) {
            self::assertTrue($e->isAbsence);
            self::assertGreaterThanOrEqual(0.3, microtime(true) - $start);
            self::assertContains([WaitEvent::NoServer, $e->getMessage()], $events);
        }
        $server = new Server();
        $held = Client::connect($server->tcp())->acquire('patient');
        $events = [];
        self::assertNull($acquire($server->tcp(), 'patient', 0.2, onWait: $onWait));
        self::assertSame([[WaitEvent::Waiting, null]], $events);
        self::assertTrue($held?->isHeld());
        unset($held);
        self::awaitNoConnections($server);
    }

    /** @dataProvider transports */
    public function testAServerThatIsLostWhenTheTimeIsOverIsAnException(Closure $acquire): void
    {
        $server = new Server();
        $held = Client::connect($server->tcp())->acquire('patient');
        $onWait = static function (WaitEvent $event) use ($server): void {
            if ($event === WaitEvent::Waiting) {
                $server->kill();
            }
        };
        try {
            $lock = $acquire($server->tcp(), 'patient', 1.0, onWait: $onWait);
            self::fail('there is no server');
        } catch (ConnectException | ConnectionLostException $e) {
            // Whether there was time for another attempt is a matter of chance.
            self::assertTrue($e instanceof ConnectionLostException || $e->isAbsence);
            self::assertFalse($held?->isHeld());
        }
    }

    /** @dataProvider transports */
    public function testOneAttemptWaitsForNothing(Closure $acquire): void
    {
        $server = new Server();
        $lock = $acquire($server->tcp(), 'patient', 0.0, onWait: self::mustNotWait());
        self::assertTrue($lock?->isHeld());
        self::assertNull($acquire($server->tcp(), 'patient', 0.0, onWait: self::mustNotWait()));
        $this->expectException(ConnectException::class);
        $lock = $acquire(self::NOWHERE, 'patient', 0.0, onWait: self::mustNotWait());
    }

    /** @dataProvider transports */
    public function testALockEndsItsConnectionWhenItIsReleasedOrDestroyed(Closure $acquire): void
    {
        $server = new Server();
        $lock = $acquire($server->tcp(), 'patient');
        $shared = $acquire($server->tcp(), 'shared', shared: true);
        self::assertInstanceOf(Lock::class, $lock);
        self::assertTrue($shared?->isShared());
        self::assertFalse($lock->orphaned());
        self::assertTrue($lock->release());
        self::assertSame([false, false], [$lock->release(), $lock->isHeld()]);
        unset($shared);
        self::awaitNoConnections($server);
        self::assertFalse(Client::connect($server->tcp())->acquire('patient', 0.0)?->orphaned());
    }

    /** @dataProvider transports */
    public function testAGrantedLockIsLostWithItsServer(Closure $acquire): void
    {
        $server = new Server();
        $lock = $acquire($server->tcp(), 'patient');
        $server->restart();
        self::assertFalse($lock?->isHeld());
        $this->expectException(ConnectionLostException::class);
        $lock?->release();
    }

    /** @dataProvider transports */
    public function testMistakesAreNotWaitedThrough(Closure $acquire): void
    {
        $server = new Server(['--locks-max', '1']);
        $secret = $server->directory() . '/secret';
        file_put_contents($secret, str_repeat('right', 10));
        $guarded = new Server(['--auth-token-file', $secret]);
        $wrong = $server->directory() . '/wrong';
        file_put_contents($wrong, str_repeat('wrong', 10));
        $held = Client::connect($server->tcp())->acquire('held');
        $url = $server->tcp();
        foreach (
            [
                [InvalidArgumentException::class, ['nonsense', 'a']],
                [InvalidArgumentException::class, [self::NOWHERE, "a\0b"]],
                [InvalidArgumentException::class, [self::NOWHERE, 'a', -1.0]],
                [InvalidArgumentException::class, [self::NOWHERE, 'a', null, false, "\xff"]],
                [InvalidArgumentException::class, [self::NOWHERE, 'a', null, false, null, 0.0]],
                [InvalidArgumentException::class, [$url, str_repeat('a', 5000)]],
                [ConnectException::class, ["tcp://127.0.0.1:{$server->port('glockd')}", 'a']],
                [ConnectException::class, ['tcp://no.such.host.invalid', 'a']],
                [ConnectException::class, [$guarded->tcp(), 'a']],
                [ConnectException::class, ["{$guarded->tcp()}?auth-token-file=$wrong", 'a']],
                [ConnectException::class, ["$url?auth-token-file=/nonexistent", 'a']],
                [RefusedException::class, [$url, 'one too many']],
            ] as [$expected, $arguments]
        ) {
            try {
                $lock = $acquire(...$arguments, onWait: self::mustNotWait());
                self::fail("granted: $arguments[0]");
            } catch (LockdException $e) {
                self::assertInstanceOf($expected, $e, "$arguments[0]: {$e->getMessage()}");
                self::assertFalse($e instanceof ConnectException && $e->isAbsence, $e->getMessage());
            }
        }
        self::assertNotNull($acquire("{$guarded->tcp()}?auth-token-file=$secret", 'a'));
        self::assertNotNull($held);
        unset($held);
        self::awaitNoConnections($server);
    }

    public function testStreamsDoNotSpeakTls(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $lock = Client::connectAndAcquire('tls://127.0.0.1:1', 'a', onWait: self::mustNotWait());
    }

    /** @dataProvider transports */
    public function testAServerThatHasTooManyConnectionsIsWaitedFor(Closure $acquire): void
    {
        $server = new Server(['--connections-max', '1']);
        $only = Client::connect($server->tcp());
        $lock = $acquire($server->tcp(), 'patient', onWait: static fn () => $only->close());
        self::assertTrue($lock?->isHeld());
    }

    /** @dataProvider transports */
    public function testOfSeveralServersOnlyTheOneOfTheNameIsAsked(Closure $acquire): void
    {
        $server = new Server();
        $secret = $server->directory() . '/secret';
        file_put_contents($secret, str_repeat('right', 10));
        $other = new Server(['--auth-token-file', $secret]);
        $urls = [$server->tcp(), $other->tcp()];
        $names = [];
        for ($number = 0; count($names) < 2; $number++) {
            $names[Rendezvous::choose($urls, "name/$number")] ??= "name/$number";
        }
        // The other server would not accept this client.
        self::assertTrue($acquire(implode(',', $urls), $names[$urls[0]], onWait: self::mustNotWait())?->release());
        $server->kill();
        self::assertNotNull($acquire(
            "$urls[0],$urls[1]?auth-token-file=$secret",
            $names[$urls[1]],
            onWait: self::mustNotWait(),
        ));
        $this->expectException(ConnectException::class);
        $this->expectExceptionMessage($urls[0]);
        $lock = $acquire("$urls[0],$urls[1]?auth-token-file=$secret", $names[$urls[0]], 0.2);
    }

    /** @dataProvider transports */
    public function testAServerThatGrantsNothingYetQueuesTheWaiter(Closure $acquire): void
    {
        $first = new Server();
        $options = ['--state-dir', $first->directory() . '/state', '--first-start'];
        mkdir($first->directory() . '/state');
        try {
            $killed = new Server($options);
            $held = Client::connect($killed->tcp())->acquire('patient');
            $killed->kill();
            $server = new Server($options);
            $reasons = [];
            $onWait = static function (WaitEvent $event, ?string $reason) use (&$reasons): void {
                self::assertSame(WaitEvent::Waiting, $event);
                $reasons[] = $reason;
            };
            self::assertNull($acquire($server->tcp(), 'patient', 0.3, onWait: $onWait));
            self::assertCount(1, $reasons);
            self::assertStringContainsString('grants nothing', (string) $reasons[0]);
            self::assertNotNull($held);
            try {
                $lock = $acquire($server->tcp(), 'patient', 0.0, onWait: self::mustNotWait());
                self::fail('granted too early');
            } catch (RefusedException $e) {
                self::assertSame('grace', $e->cause);
            }
        } finally {
            unset($server, $killed);
            array_map(unlink(...), glob($first->directory() . '/state/*') ?: []);
            rmdir($first->directory() . '/state');
        }
    }

    public function testAServerThatIsStoppingIsAbsent(): void
    {
        $stopping = ['status' => 'refused', 'reason' => 'the server is stopping', 'cause' => 'stopping'];
        $answer = static fn (callable $receive, callable $send) =>
            $send(FakeServer::frame(['id' => $receive()['id'], 'result' => $stopping]));
        $server = FakeServer::start(static fn (callable $receive, callable $send) => $answer($receive, $send));
        try {
            $lock = Client::connectAndAcquire($server->url, 'a', 0.0, onWait: self::mustNotWait());
            self::fail('granted');
        } catch (ConnectException $e) {
            self::assertTrue($e->isAbsence);
        }
        $server = FakeServer::start(static function (callable $receive, callable $send) use ($answer): void {
            FakeServer::hello($receive, $send);
            $answer($receive, $send);
        });
        $this->expectException(ConnectionLostException::class);
        $this->expectExceptionMessage('the server is stopping');
        $lock = Client::connectAndAcquire($server->url, 'a', 0.0, onWait: self::mustNotWait());
    }
}
