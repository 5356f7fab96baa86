<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\LockdException;
use Lockd\Lock;
use Lockd\Message\Rendezvous;
use Lockd\SessionState;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Meanwhile;
use Lockd\Tests\Support\Server;
use Lockd\WaitEvent;
use PHPUnit\Framework\TestCase;
use RuntimeException;

/** Sessions that resume, on a server that ends and comes back. Subclasses supply the transport. */
abstract class ResumingContract extends TestCase
{
    /** @param string $urls with or without `?resume` */
    abstract protected static function connect(string $urls, ?string $owner = null): Client;

    abstract protected static function connectAndAcquire(string $url, string $name, ?callable $onWait = null): ?Lock;

    /** The address of a server for the clients of this class. */
    abstract protected static function url(Server $server): string;

    /** In seconds, for what must not fail because a machine is busy. */
    private const LONG = 25.0;

    private static function held(?Lock $lock): Lock
    {
        self::assertNotNull($lock);
        return $lock;
    }

    /** A process that waits for a lock, and says so when it has it. */
    private static function waiter(string $url, string $name): Child
    {
        return Child::start(static function (callable $say, callable $pause) use ($url, $name): void {
            $client = static::connect($url, 'waiter');
            $say('waits');
            $lock = $client->acquire($name, 60.0);
            $say((string) $lock?->token());
            $pause();
            $lock?->release();
        });
    }

    private static function waits(Client $client, string $name): void
    {
        Deadline::until('it waits', static fn (): bool => $client->inspect($name)->waiters === 1);
    }

    public function testAHolderKeepsItsLockWhenItsServerIsKilled(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server), 'holder');
        self::assertTrue($client->isResumable());
        $lock = self::held($client->acquire('kept'));
        $shared = self::held($client->acquire('shared', shared: true));
        $limited = self::held($client->acquire("\xff limited", atMost: 4));
        $token = $lock->token();
        $waiter = self::waiter(static::url($server), 'kept');
        self::assertSame('waits', $waiter->hear());
        self::waits($client, 'kept');
        $server->kill();
        self::assertFalse($lock->isHeld());
        self::assertSame(SessionState::InDoubt, $lock->state());
        $server->startAgain();
        self::assertSame(SessionState::Alive, $client->waitCertain(self::LONG));
        foreach ([$lock, $shared, $limited] as $one) {
            self::assertTrue($one->isHeld());
        }
        self::assertSame($token, $lock->token());
        foreach ($client->list() as $listed) {
            self::assertSame('holder', $listed->holders[0]->owner ?? 'nobody');
        }
        // The waiter has queued again by itself, and gets the lock after the holder only.
        self::waits($client, 'kept');
        self::assertTrue($lock->isHeld());
        self::assertTrue($lock->release());
        self::assertGreaterThan($token, (int) $waiter->hear());
        $waiter->goOn();
        self::assertSame('done', $waiter->hear());
    }

    public function testAHolderKeepsItsLockWhenItsServerIsStopped(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server) . '?resume', 'holder');
        $lock = self::held($client->acquire('kept'));
        $waiter = self::waiter(static::url($server), 'kept');
        self::assertSame('waits', $waiter->hear());
        self::waits($client, 'kept');
        $server->stop();
        self::assertFalse($client->stands());
        $server->startAgain();
        self::assertTrue($lock->isHeld(self::LONG));
        // All who held something are back: the server grants again, without a grace.
        self::assertTrue(self::held($client->acquire('another', self::LONG))->isHeld());
        self::waits($client, 'kept');
        self::assertTrue($lock->release());
        self::assertGreaterThan($lock->token(), (int) $waiter->hear());
        $waiter->goOn();
        self::assertSame('done', $waiter->hear());
    }

    public function testInDoubtNoCallSaysYes(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server), 'holder');
        $lock = self::held($client->acquire('held'));
        $shared = self::held($client->acquire('shared', shared: true));
        $server->stop();
        self::assertSame([false, false], [$client->stands(), $lock->isHeld()]);
        self::assertSame([SessionState::InDoubt, SessionState::InDoubt], [$client->state(), $lock->waitCertain(0.1)]);
        $calls = [
            static fn () => $client->acquire('other'),
            static fn () => $client->acquire('other', 0.2),
            static fn () => $client->acquire('held', 0.2),
            static fn () => $client->synchronized('other', static fn () => self::fail('the body ran'), 0.2),
            static fn () => $client->inspect('held'),
            static fn () => [...$client->list()],
            static fn () => $lock->convert(atMost: 4),
            static fn () => $shared->makeExclusive(),
            static fn () => $shared->makeExclusive(0.2),
        ];
        foreach ($calls as $at => $call) {
            try {
                self::fail("call $at says: " . var_export($call(), true));
            } catch (LockdException $e) {
                self::assertInstanceOf(DoubtException::class, $e, "call $at: {$e->getMessage()}");
                self::assertStringContainsString('in doubt', $e->getMessage());
            }
        }
        $server->startAgain();
        self::assertSame(SessionState::Alive, $client->waitCertain(self::LONG));
        self::assertSame([true, true], [$lock->isHeld(), $shared->isHeld()]);
        self::assertTrue($shared->makeExclusive(self::LONG));
        self::assertNotNull($client->acquire('other', self::LONG));
    }

    public function testAHandlerThatThrowsEndsAWaitForCertainty(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server), 'holder');
        $lock = self::held($client->acquire('held'));
        $server->stop();
        $calls = [
            static fn () => $client->waitCertain(self::LONG),
            static fn () => $client->acquire('other', self::LONG),
        ];
        foreach ($calls as $call) {
            $meanwhile = Meanwhile::does(static fn () => throw new RuntimeException('enough'));
            try {
                $call();
                self::fail('the handler\'s exception is lost');
            } catch (RuntimeException $e) {
                self::assertSame('enough', $e->getMessage());
            }
            unset($meanwhile);
        }
        $server->startAgain();
        self::assertTrue($lock->isHeld(self::LONG));
    }

    public function testAWaitBeginsAnewWithoutAnythingToResume(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server), 'waiter');
        $server->kill();
        try {
            self::fail('there is no server, but: ' . var_export($client->acquire('anew'), true));
        } catch (DoubtException) {
            self::assertSame(SessionState::InDoubt, $client->state());
        }
        $server->startAgain();
        // After the grace.
        self::assertTrue($client->acquire('anew', self::LONG)?->isHeld());
    }

    public function testWhatWasReleasedInDoubtIsFreeAfterwards(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server), 'holder');
        $lock = self::held($client->acquire('given up'));
        $other = self::held($client->acquire('kept'));
        $server->stop();
        self::assertFalse($client->stands());
        try {
            $lock->release();
            self::fail('a server that is gone cannot have confirmed the release');
        } catch (DoubtException $e) {
            self::assertStringContainsString('in doubt', $e->getMessage());
        }
        $server->startAgain();
        self::assertTrue($other->isHeld(self::LONG));
        self::assertFalse($client->inspect('given up')->isHeld());
        self::assertTrue(self::held($client->acquire('given up', self::LONG))->isHeld());
    }

    public function testWithoutTheStateOfItsServerASessionIsLost(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server), 'holder');
        $lock = self::held($client->acquire('lost'));
        $server->kill();
        $server->forget();
        $server->startAgain();
        self::assertSame(SessionState::Lost, $lock->waitCertain(self::LONG));
        $this->expectException(ConnectionLostException::class);
        $lock->release();
    }

    public function testWithoutAStateDirectoryNothingResumes(): void
    {
        $server = new Server();
        $client = static::connect(static::url($server));
        self::assertFalse($client->isResumable());
        $lock = self::held($client->acquire('as ever'));
        $server->restart();
        self::assertSame([SessionState::Lost, false], [$client->state(), $lock->isHeld(self::LONG)]);
        $this->expectException(ConnectionLostException::class);
        $lock->release();
    }

    /** The end of a process is its word: others need not wait, although it could have resumed. */
    public function testTheLocksOfAClientThatEndsAreFreeAtOnce(): void
    {
        $server = new Server(remembers: true);
        $observer = Client::connect($server->tcp(), null, 30.0);
        foreach (['closed', 'destroyed', 'killed'] as $how) {
            $child = Child::start(static function (callable $say, callable $pause) use ($server, $how): void {
                $client = static::connect(static::url($server), $how);
                $lock = $client->acquire('ended');
                $say((string) $lock?->isHeld());
                $pause();
                if ($how === 'closed') {
                    $client->close();
                } elseif ($how === 'destroyed') {
                    unset($client, $lock);
                }
            });
            self::assertSame('1', $child->hear());
            $child->goOn();
            // Much sooner than the server would give up a client that has vanished.
            $lock = self::held($observer->acquire('ended', 8.0));
            self::assertTrue($lock->release());
        }
    }

    public function testASynchronizedCallSurvivesARestart(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server), 'holder');
        $result = $client->synchronized('work', static function () use ($server): string {
            $server->restartCleanly();
            return 'done';
        });
        self::assertSame('done', $result);
        self::assertFalse($client->inspect('work')->isHeld());
    }

    public function testAPatientLockResumesFromItsGrantOn(): void
    {
        $server = new Server(remembers: true);
        $lock = self::held(static::connectAndAcquire(static::url($server), 'patient'));
        $server->restartCleanly();
        self::assertTrue($lock->isHeld(self::LONG));
        self::assertTrue($lock->release());
        // The connection has ended with the lock.
        self::assertSame(SessionState::Lost, $lock->state());
        self::assertNotNull(Client::connect($server->tcp())->acquire('patient', self::LONG));
    }

    public function testTheEndOfOneServerIsNoDoubtAboutTheOthers(): void
    {
        $servers = [new Server(remembers: true), new Server(remembers: true)];
        $urls = array_map(static fn (Server $server): string => static::url($server), $servers);
        $client = static::connect(implode(',', $urls));
        $locks = [null, null];
        for ($number = 1; in_array(null, $locks, true); $number++) {
            $at = array_search(Rendezvous::choose($urls, "name/$number"), $urls, true);
            $locks[$at] ??= self::held($client->acquire("name/$number"));
        }
        $servers[1]->stop();
        self::assertSame([true, false], [$locks[0]->isHeld(), $locks[1]->isHeld()]);
        self::assertSame([SessionState::InDoubt, SessionState::InDoubt], [$locks[1]->state(), $client->state()]);
        $servers[1]->startAgain();
        self::assertSame(SessionState::Alive, $client->waitCertain(self::LONG));
        self::assertSame([true, true], [$locks[0]->isHeld(), $locks[1]->isHeld()]);
        // Without a lock on it, the end of a server does not matter.
        self::assertTrue($locks[0]->release());
        $servers[0]->stop();
        self::assertSame(SessionState::Alive, $client->state());
        $servers[1]->kill();
        self::assertSame(SessionState::InDoubt, $client->waitCertain(0.1));
    }

    /** A host's name is not resolved again in doubt: a resolver may take any time. */
    public function testANameOfAHostIsResolvedOnce(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect("tcp://localhost:{$server->port()}");
        $lock = self::held($client->acquire('kept'));
        $server->restartCleanly();
        self::assertTrue($lock->isHeld(self::LONG));
    }

    public function testAPatientWaitIsToldOfARestart(): void
    {
        $server = new Server(remembers: true);
        $holder = static::connect(static::url($server), 'holder');
        $held = self::held($holder->acquire('patient'));
        $events = [];
        $onWait = static function (WaitEvent $event) use (&$events, $server, $held): void {
            $events[] = $event;
            if ($events === [WaitEvent::Waiting]) {
                $server->restartCleanly();
                self::assertTrue($held->isHeld(self::LONG));
            } elseif ($event === WaitEvent::Waiting) {
                $held->release();
            }
        };
        $lock = static::connectAndAcquire(static::url($server), 'patient', $onWait);
        self::assertTrue($lock?->isHeld());
        self::assertContains(WaitEvent::NoServer, $events);
        self::assertSame(WaitEvent::Waiting, end($events));
    }

    public function testAWorkerThatLooksNowAndThenHoldsThroughManyRestarts(): void
    {
        $server = new Server(remembers: true);
        $client = static::connect(static::url($server), 'worker');
        $lock = self::held($client->acquire('mailer'));
        $token = $lock->token();
        for ($restart = 0; $restart < 5; $restart++) {
            $restart % 2 === 0 ? $server->restart() : $server->restartCleanly();
            self::assertTrue($lock->isHeld(self::LONG), "after restart $restart");
            self::assertSame($token, $lock->token());
        }
        self::assertTrue($lock->release());
    }
}
