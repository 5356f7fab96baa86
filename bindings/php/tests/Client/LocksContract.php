<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\NotHeldException;
use Lockd\Exception\TimeoutException;
use Lockd\ListedLock;
use Lockd\Lock;
use Lockd\Tests\Support\Meanwhile;
use Lockd\Tests\Support\Storm;
use LogicException;
use PHPUnit\Framework\TestCase;
use RuntimeException;

/**
 * The behaviour of a client that is the same for every transport. Subclasses supply the transport.
 */
abstract class LocksContract extends TestCase
{
    /** A new client, on the same broker as the earlier ones. */
    abstract protected static function client(?string $owner = null): Client;

    public function testAnExclusiveLockHasOneHolderAtATime(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $lock = $a->acquire('one', 0.0);
        self::assertInstanceOf(Lock::class, $lock);
        self::assertSame('one', $lock->name());
        self::assertTrue($lock->isHeld());
        self::assertFalse($lock->isShared());
        self::assertFalse($lock->orphaned());
        self::assertNull($b->acquire('one', 0.0));
        self::assertNull($b->acquire('one', 0.05));
        self::assertSame(0, $b->inspect('one')->waiters);

        self::assertTrue($lock->release());
        self::assertFalse($lock->isHeld());
        self::assertFalse($lock->release());
        $next = $b->acquire('one', 0.0);
        self::assertNotNull($next);
        self::assertGreaterThan($lock->token(), $next->token());
        self::assertFalse($lock->release());
        self::assertTrue($next->isHeld());
    }

    public function testALockIsReleasedWhenItsObjectIsDestroyed(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $lock = $a->acquire('going');
        // The lock also keeps its connection alive.
        unset($a);
        self::assertNull($b->acquire('going', 0.0));
        unset($lock);
        self::assertNotNull($b->acquire('going', 0.0));
        self::assertNotNull(static::client()->acquire('going', 0.0));
    }

    public function testClosingReleasesEverything(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $locks = [$a->acquire('closing/1'), $a->acquire('closing/2', null, true), $a->acquire('7')];
        self::assertTrue($a->stands());
        $a->close();
        self::assertFalse($a->stands());
        foreach ($locks as $lock) {
            self::assertFalse($lock?->isHeld());
            self::assertFalse($lock->release());
            $next = $b->acquire($lock->name(), 0.0);
            self::assertFalse($next?->orphaned());
        }
        $a->close();
    }

    public function testAcquireWaitsItsTurn(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $held = $a->acquire('turn');
        $waiters = null;
        $meanwhile = Meanwhile::does(function () use ($held, $a, &$waiters): void {
            $waiters = $a->inspect('turn')->waiters;
            $held?->release();
        });
        $lock = $b->acquire('turn', 30.0);
        self::assertTrue($lock?->isHeld());
        self::assertNotNull($waiters);
        self::assertGreaterThan($held?->token(), $lock->token());
    }

    public function testAcquireWaitsWithoutLimit(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $held = $a->acquire('unlimited');
        $meanwhile = Meanwhile::does(fn () => $held?->release());
        self::assertTrue($b->acquire('unlimited', null)?->isHeld());
    }

    public function testSignalHandlersRunDuringAWaitWithoutAsyncSignals(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $held = $a->acquire('dispatched');
        $meanwhile = Meanwhile::does(fn () => $held?->release(), async: false);
        self::assertTrue($b->acquire('dispatched', 30.0)?->isHeld());
    }

    public function testASignalHandlerMayUseTheWaitingClient(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $held = $a->acquire('used');
        $seen = [];
        $meanwhile = Meanwhile::does(function () use ($b, $held, &$seen): void {
            $seen[] = $b->acquire('used/2')?->release();
            $seen[] = $b->inspect('used')->waiters;
            try {
                $lock = $b->acquire('used', 0.0);
            } catch (AlreadyHeldException) {
                $seen[] = 'waits already';
            }
            $held?->release();
        });
        self::assertTrue($b->acquire('used', 30.0)?->isHeld());
        // On a slow machine the signal may come before the wait has begun: then there is no waiter
        // yet.
        self::assertContains($seen, [[true, 1, 'waits already'], [true, 0]]);
    }

    public function testAHandlerThatThrowsEndsTheWait(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $held = $a->acquire('thrown');
        $meanwhile = Meanwhile::does(fn () => throw new RuntimeException('enough'));
        try {
            $lock = $b->acquire('thrown', 30.0);
            self::fail('the handler\'s exception is lost');
        } catch (RuntimeException $e) {
            self::assertSame('enough', $e->getMessage());
        }
        self::assertSame(0, $a->inspect('thrown')->waiters);
        $held?->release();
        self::assertFalse($a->inspect('thrown')->isHeld());
        self::assertTrue($b->acquire('thrown', 0.0)?->isHeld());
    }

    public function testAHandlerThatThrowsDuringAConversionLeavesTheLockShared(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $mine = $b->acquire('unconverted', null, true);
        $other = $a->acquire('unconverted', null, true);
        $meanwhile = Meanwhile::does(fn () => throw new RuntimeException('enough'));
        try {
            $mine?->convert(false, 30.0);
            self::fail('the handler\'s exception is lost');
        } catch (RuntimeException $e) {
            self::assertSame('enough', $e->getMessage());
        }
        $other?->release();
        self::assertTrue($mine?->isHeld());
        self::assertTrue($mine->isShared());
        self::assertSame('shared', $a->inspect('unconverted')->mode);
        self::assertTrue($mine->convert(false, 0.0));
    }

    /**
     * @param callable(): void $do in a signal handler, as soon as handlers may run during a wait
     */
    private static function firstThing(callable $do): void
    {
        pcntl_signal(SIGUSR2, static function () use ($do): void {
            pcntl_signal(SIGUSR2, SIG_DFL);
            $do();
        });
        posix_kill(getmypid(), SIGUSR2);
    }

    public function testAHandlerCannotChangeALockThatIsBeingConverted(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $lock = $a->acquire('converting', 0.0, true);
        $other = $b->acquire('converting', 0.0, true);
        $refused = 0;
        self::firstThing(function () use ($lock, &$refused): void {
            foreach ([fn () => $lock?->release(), fn () => $lock?->convert(true)] as $call) {
                try {
                    $call();
                } catch (AlreadyHeldException) {
                    $refused++;
                }
            }
        });
        self::assertFalse($lock?->convert(false, 0.05));
        self::assertSame(2, $refused);
        $other?->release();
        self::assertTrue($lock->convert(false, 0.0));
        self::assertNull($b->acquire('converting', 0.0));
        self::assertSame([false, true], [$lock->isShared(), $lock->isHeld()]);
        self::assertTrue($lock->release());
    }

    public function testAHandlerThatClosesTheClientLeavesNoLockHeld(): void
    {
        foreach ([0.0, 30.0] as $timeout) {
            [$a, $b] = [static::client(), static::client()];
            $held = $timeout > 0.0 ? $b->acquire('closed/of', 0.0) : null;
            self::firstThing(function () use ($a, $held): void {
                // By now the request that was sent before has been answered.
                usleep(20_000);
                $a->close();
                $held?->release();
            });
            pcntl_async_signals(true);
            try {
                $a->synchronized('closed/of', fn () => self::fail('the body ran'), $timeout);
            } catch (LockdException $e) {
                self::assertNotSame('', $e->getMessage());
            } finally {
                pcntl_async_signals(false);
            }
            $held?->release();
            // The server may not have noticed yet that a connection has ended.
            self::assertTrue($b->acquire('closed/of', 30.0)?->isHeld());
        }
    }

    public function testSignalHandlersThatThrowAtAnyMomentLeaveNoLockInDoubt(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $lock = $a->acquire('stormy', 0.0, true);
        $storm = new Storm();
        try {
            $struck = 0;
            for ($time = 0; $time < 400; $time++) {
                $struck += (int) $storm->strikes(fn () => $lock?->convert(!$lock->isShared(), 1.0));
                self::assertTrue($lock?->isHeld());
                self::assertSame($lock->isShared() ? 'shared' : 'exclusive', $b->inspect('stormy')->mode);
            }
            for ($time = 0; $time < 400; $time++) {
                $struck += (int) $storm->strikes(fn () => $a->synchronized("stormy/$time", fn () => null, 1.0));
                self::assertFalse($b->inspect("stormy/$time")->isHeld());
            }
            self::assertGreaterThan(0, $struck);
        } finally {
            $storm->end();
        }
        self::assertTrue($lock->release());
    }

    public function testClosingReleasesAllLocksOrNoneIfAHandlerThrows(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $locks = array_map(fn (int $number) => $a->acquire("all/$number"), range(1, 20));
        $storm = new Storm();
        try {
            $storm->strikes(fn () => $a->close());
        } finally {
            $storm->end();
        }
        self::assertCount(20, $locks);
        // The signal came either before close() began or after it was done.
        self::assertSame($a->stands() ? 20 : 0, count([...$b->list('all/')]));
    }

    public function testASharedLockHasSeveralHolders(): void
    {
        [$a, $b, $c] = [static::client(), static::client(), static::client()];
        $one = $a->acquire('shared', 0.0, true);
        $two = $b->acquire('shared', 0.0, true);
        self::assertTrue($one?->isShared());
        self::assertTrue($two?->isHeld());
        self::assertNull($c->acquire('shared', 0.0));
        self::assertSame(['shared', 2], [$c->inspect('shared')->mode, $c->inspect('shared')->holders]);
        $one->release();
        $two->release();
        $alone = $c->acquire('shared', 0.0);
        self::assertNotNull($alone);
        self::assertNull($a->acquire('shared', 0.0, true));
    }

    public function testALockIsConvertedInBothDirections(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $one = $a->acquire('converted', null, true);
        $two = $b->acquire('converted', null, true);
        self::assertNotNull($one);
        self::assertNotNull($two);
        $token = $one->token();
        self::assertFalse($one->convert(false, 0.0));
        self::assertFalse($one->convert(false, 0.05));
        self::assertSame([true, true, $token], [$one->isShared(), $one->isHeld(), $one->token()]);

        $meanwhile = Meanwhile::does(fn () => $two->release());
        self::assertTrue($one->convert(false, 30.0));
        self::assertSame([false, true], [$one->isShared(), $one->isHeld()]);
        self::assertGreaterThan($token, $one->token());
        self::assertNull($b->acquire('converted', 0.0, true));

        self::assertTrue($one->convert(true));
        self::assertNotNull($three = $b->acquire('converted', 0.0, true));
        self::assertTrue($one->release());
        $this->expectException(NotHeldException::class);
        $this->expectExceptionMessage('"converted" has been released');
        $one->convert(false);
    }

    public function testTwoHoldersThatBothConvertAreADeadlock(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $one = $a->acquire('both', null, true);
        $two = $b->acquire('both', null, true);
        $caught = null;
        $meanwhile = Meanwhile::does(function () use ($two, &$caught): void {
            try {
                $two?->convert(false, 30.0);
            } catch (DeadlockException $e) {
                $caught = $e;
            }
            $two?->release();
        });
        self::assertTrue($one?->convert(false, 30.0));
        self::assertInstanceOf(DeadlockException::class, $caught);
    }

    public function testAWaitThatWouldCloseACycleIsRefused(): void
    {
        [$a, $b] = [static::client('a'), static::client('b')];
        $mine = $a->acquire('circle/a');
        $theirs = $b->acquire('circle/b');
        $caught = null;
        $meanwhile = Meanwhile::does(function () use ($b, $theirs, &$caught): void {
            try {
                $lock = $b->acquire('circle/a', null);
            } catch (DeadlockException $e) {
                $caught = $e;
            }
            $theirs?->release();
        });
        self::assertTrue($a->acquire('circle/b', 30.0)?->isHeld());
        self::assertStringContainsString('deadlock', (string) $caught?->getMessage());
        self::assertTrue($mine?->isHeld());
    }

    public function testAClientCannotAcquireALockTwice(): void
    {
        $a = static::client();
        $lock = $a->acquire('mine');
        foreach ([false, true] as $shared) {
            try {
                $second = $a->acquire('mine', 0.0, $shared);
                self::fail('the lock was granted twice');
            } catch (AlreadyHeldException) {
                self::assertTrue($lock?->isHeld());
            }
        }
        $lock->release();
        self::assertTrue($a->acquire('mine', 0.0)?->isHeld());
    }

    /** @return iterable<string, array{string}> */
    public static function names(): iterable
    {
        yield 'empty' => [''];
        yield 'a number' => ['123'];
        yield 'the same with a zero' => ['0123'];
        yield 'text' => ["Seite \u{1F512} \"ä\" \\ / \n"];
        yield 'bytes' => ["\xff\xfe\x01"];
        yield 'as long as may be' => [str_repeat('n', 1024)];
    }

    /** @dataProvider names */
    public function testNamesMayContainAnyBytesButZero(string $name): void
    {
        [$a, $b] = [static::client(), static::client()];
        $lock = $a->acquire($name, 0.0);
        self::assertTrue($lock?->isHeld());
        self::assertSame($name, $lock->name());
        self::assertNull($b->acquire($name, 0.0));
        self::assertNotNull($b->acquire('.' . substr($name, 1), 0.0));
        $listed = array_map(fn (ListedLock $listed): string => $listed->name, [...$b->list($name)]);
        self::assertContains($name, $listed);
        self::assertTrue($lock->release());
    }

    public function testInvalidNamesAndTimeLimitsAreRefused(): void
    {
        $a = static::client();
        $calls = [
            fn () => $a->acquire("zero\0byte"),
            fn () => $a->inspect("zero\0byte"),
            fn () => $a->list("zero\0byte"),
            fn () => $a->acquire(str_repeat('n', 1025)),
        ];
        foreach ($calls as $call) {
            try {
                $call();
                self::fail('an invalid name was accepted');
            } catch (InvalidArgumentException $e) {
                self::assertNotSame('', $e->getMessage());
            }
        }
        foreach ([-0.001, NAN, -INF] as $timeout) {
            try {
                $lock = $a->acquire('limit', $timeout);
                self::fail('an invalid time limit was accepted');
            } catch (InvalidArgumentException) {
                self::assertFalse($a->inspect('limit')->isHeld());
            }
        }
        self::assertTrue($a->acquire('limit', INF)?->isHeld());
    }

    public function testSynchronizedHoldsTheLockWhileTheBodyRuns(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $result = $a->synchronized('body', function (Lock $lock) use ($b): string {
            self::assertTrue($lock->isHeld());
            try {
                $b->synchronized('body', fn () => self::fail('two holders at once'), 0.0);
            } catch (TimeoutException) {
                return 'alone';
            }
        });
        self::assertSame('alone', $result);
        self::assertFalse($b->inspect('body')->isHeld());

        try {
            $a->synchronized('body', fn () => throw new RuntimeException('of the body'));
        } catch (RuntimeException $e) {
            self::assertSame('of the body', $e->getMessage());
        }
        self::assertFalse($b->inspect('body')->isHeld());
        self::assertNull($a->synchronized('body', fn (Lock $lock) => $lock->release() ? null : 'no'));
    }

    public function testListReturnsTheLocksWithThePrefixInOrder(): void
    {
        [$a, $b] = [static::client('painter'), static::client('printer')];
        $locks = [];
        for ($number = 0; $number < 1200; $number++) {
            $locks[] = $a->acquire(sprintf('list/%04d', $number));
        }
        $shared = [$a->acquire('listed', null, true), $b->acquire('listed', null, true)];
        $names = array_map(fn (ListedLock $lock): string => $lock->name, [...$b->list('list/')]);
        self::assertSame(array_map(fn (int $number): string => sprintf('list/%04d', $number), range(0, 1199)), $names);

        [$listed] = [...$b->list('listed')];
        self::assertSame('shared', $listed->mode);
        $holders = array_column(array_map(fn ($party) => [$party->owner, $party->token], $listed->holders), 1, 0);
        ksort($holders);
        self::assertSame(['painter' => $shared[0]?->token(), 'printer' => $shared[1]?->token()], $holders);
        self::assertGreaterThanOrEqual(0.0, $listed->holders[0]->seconds);
        self::assertSame([], $listed->waiters);
        self::assertSame([], [...$b->list('nothing is called so')]);
    }

    public function testListShowsWaiters(): void
    {
        [$a, $b] = [static::client(), static::client('waiter')];
        $held = $a->acquire('awaited');
        $waiters = null;
        $meanwhile = Meanwhile::does(function () use ($a, $held, &$waiters): void {
            [$listed] = [...$a->list('awaited')];
            $waiters = $listed->waiters;
            $held?->release();
        });
        self::assertNotNull($b->acquire('awaited', 30.0));
        self::assertIsArray($waiters);
        foreach ($waiters as $waiter) {
            self::assertSame(['waiter', 'exclusive', null], [$waiter->owner, $waiter->mode, $waiter->token]);
        }
    }

    public function testClientsAndLocksCannotBeCopiedOrSerialized(): void
    {
        $client = static::client();
        $lock = $client->acquire('copied');
        $copies = [
            fn () => serialize($client),
            fn () => serialize($lock),
            fn () => clone $client,
            fn () => clone $lock,
            fn () => unserialize('O:12:"Lockd\Client":0:{}'),
            fn () => unserialize('O:10:"Lockd\Lock":0:{}'),
            fn () => unserialize('O:24:"Lockd\Message\Connection":0:{}'),
        ];
        foreach ($copies as $copy) {
            try {
                $copy();
                self::fail('a copy was possible');
            } catch (LogicException | \Error $e) {
                self::assertNotSame('', $e->getMessage());
            }
        }
        self::assertTrue($lock?->isHeld());
    }
}
