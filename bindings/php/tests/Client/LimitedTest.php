<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\TimeoutException;
use Lockd\Lock;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\LooseCalls;
use Lockd\Tests\Support\Meanwhile;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Storm;
use PHPUnit\Framework\TestCase;
use RuntimeException;

/** Locks with at most so many holders, with every transport and with a mixture of them. */
final class LimitedTest extends TestCase
{
    private static ?Server $server = null;

    private static function server(): Server
    {
        return self::$server ??= new Server();
    }

    protected function setUp(): void
    {
        // A server that a test's child starts would be the child's, and outlive it if it is killed.
        self::server();
    }

    public static function tearDownAfterClass(): void
    {
        self::$server = null;
    }

    /** @return iterable<string, array{callable(?string=): Client}> makes a client of one broker */
    public static function transports(): iterable
    {
        yield from self::served();
        yield 'embedded' => [Client::embedded(...)];
    }

    /** @return iterable<string, array{callable(?string=): Client}> makes a client of one server */
    public static function served(): iterable
    {
        $streams = static fn (?string $owner = null): Client => Client::connect(self::server()->tcp(), $owner);
        $ffi = static fn (?string $owner = null): Client => Client::connectByFfi(self::server()->unix(), $owner);
        yield 'streams' => [$streams];
        yield 'FFI' => [$ffi];
        $made = 0;
        yield 'mixed' => [static function (?string $owner = null) use ($streams, $ffi, &$made): Client {
            return ++$made % 2 === 0 ? $ffi($owner) : $streams($owner);
        }];
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testNeverMoreHoldersThanTheLimit(callable $client): void
    {
        $locks = [];
        foreach (range(1, 3) as $holders) {
            $lock = $client()->acquire('gpu', 0.0, atMost: 3);
            self::assertTrue($lock?->isHeld());
            self::assertSame([3, true, false], [$lock->limit(), $lock->isShared(), $lock->orphaned()]);
            $seen = $client()->inspect('gpu');
            self::assertSame(['shared', 3, $holders, 3 - $holders, 0], [
                $seen->mode, $seen->limit, $seen->holders, $seen->freeSlots(), $seen->waiters,
            ]);
            $locks[] = $lock;
        }
        $next = $client();
        self::assertNull($next->acquire('gpu', 0.0, atMost: 3));
        self::assertNull($next->acquire('gpu', 0.05, atMost: 3));
        self::assertTrue($locks[1]->release());
        $last = $next->acquire('gpu', 0.0, atMost: 3);
        self::assertTrue($last?->isHeld());
        self::assertGreaterThan($locks[2]->token(), $last->token());
        self::assertNull($client()->acquire('gpu', 0.0, atMost: 3));
        unset($locks, $lock, $last);
        $free = $client()->inspect('gpu');
        self::assertSame([null, null, null, 0], [$free->mode, $free->limit, $free->freeSlots(), $free->holders]);
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testTheSmallestLimitOfTheHoldersIsInForce(callable $client): void
    {
        [$a, $b, $c] = [$client(), $client(), $client()];
        $five = $a->acquire('mixed', 0.0, atMost: 5);
        $two = $b->acquire('mixed', 0.0, atMost: 2);
        self::assertSame([2, 2, 0], [$c->inspect('mixed')->limit, $c->inspect('mixed')->holders,
            $c->inspect('mixed')->freeSlots()]);
        // The second holder was promised that there are never more than two, of whatever kind.
        self::assertNull($c->acquire('mixed', 0.0, atMost: 5));
        self::assertNull($c->acquire('mixed', 0.0, true));
        self::assertTrue($two?->release());
        $shared = $b->acquire('mixed', 0.0, true);
        self::assertSame([5, 3], [$c->inspect('mixed')->limit, $c->inspect('mixed')->freeSlots()]);
        // A request keeps its own limit, too.
        self::assertNull($c->acquire('mixed', 0.0, atMost: 2));
        self::assertNull($c->acquire('mixed', 0.0));
        self::assertTrue($c->acquire('mixed', 0.0, atMost: 3)?->isHeld());
        self::assertTrue($five?->release());
        self::assertSame([null, null], [$c->inspect('mixed')->limit, $c->inspect('mixed')->freeSlots()]);
        self::assertTrue($shared?->isHeld());
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testAtMostOneIsExclusive(callable $client): void
    {
        $lock = $client()->acquire('one', 0.0, atMost: 1);
        self::assertSame([1, false], [$lock?->limit(), $lock?->isShared()]);
        $seen = $client()->inspect('one');
        self::assertSame(['exclusive', 1, 0], [$seen->mode, $seen->limit, $seen->freeSlots()]);
        self::assertNull($client()->acquire('one', 0.0, true));
        [$listed] = [...$client()->list('one')];
        self::assertSame([1, 1], [$listed->limit, $listed->holders[0]->limit]);
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testInvalidLimitsAreRefused(callable $client): void
    {
        $a = $client();
        $most = $a->acquire('most', 0.0, atMost: 16_777_215);
        self::assertTrue($most?->isHeld());
        foreach ([[false, 0], [false, -1], [false, 16_777_216], [false, PHP_INT_MAX], [true, 4]] as [$shared, $limit]) {
            $calls = [
                fn () => $a->acquire('invalid', 0.0, $shared, $limit),
                fn () => $a->synchronized('invalid', fn () => self::fail('the body ran'), 0.0, $shared, $limit),
                fn () => $most->convert($shared, 0.0, $limit),
                fn () => Client::connectAndAcquire('tcp://127.0.0.1:1', 'x', 0.0, $shared, atMost: $limit),
                fn () => Client::connectAndAcquireByFfi('tcp://127.0.0.1:1', 'x', 0.0, $shared, atMost: $limit),
            ];
            foreach ($calls as $call) {
                try {
                    $call();
                    self::fail('an invalid limit was accepted');
                } catch (InvalidArgumentException $e) {
                    self::assertStringContainsString('atMost', $e->getMessage());
                }
            }
        }
        self::assertFalse($a->inspect('invalid')->isHeld());
        self::assertSame([true, 16_777_215], [$most->isHeld(), $most->limit()]);
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testANumberOfHoldersIsNotTakenForASharedLock(callable $client): void
    {
        $a = $client();
        $mine = $a->acquire('strict', 0.0, atMost: 2);
        self::assertNotNull($mine);
        foreach ([4, 1, 0, 2.5, '4', '2.5'] as $number) {
            foreach (LooseCalls::withNumberAsShared($a, $mine, $number) as $call) {
                try {
                    $call();
                    self::fail("$number was taken for true or false");
                } catch (InvalidArgumentException $e) {
                    self::assertStringContainsString("not $number: ", $e->getMessage());
                    self::assertStringContainsString('atMost: 4', $e->getMessage());
                }
            }
        }
        self::assertFalse($a->inspect('loose')->isHeld());
        self::assertSame([true, 2], [$mine->isHeld(), $mine->limit()]);
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testTheHolderOfASlotIsToldHowToGetAnotherLimitOrSlot(callable $client): void
    {
        $a = $client();
        $two = $a->acquire('again', 0.0, atMost: 2);
        $one = $a->acquire('alone', 0.0);
        $calls = [['again', 2, true, true], ['again', 3, true, true], ['again', 1, true, false],
            ['alone', 2, true, false], ['alone', 1, false, false]];
        foreach ($calls as [$name, $limit, $convert, $second]) {
            try {
                $lock = $a->acquire($name, 0.0, atMost: $limit);
                self::fail('one client has two slots');
            } catch (AlreadyHeldException $e) {
                self::assertSame($convert, str_contains($e->getMessage(), 'convert()'));
                // A second client would wait for the first one if either of them is exclusive.
                self::assertSame($second, str_contains($e->getMessage(), 'a second client'));
            }
        }
        self::assertSame([2, 1], [$two?->limit(), $one?->limit()]);
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testALockIsConvertedBetweenAnyTwoLimits(callable $client): void
    {
        [$a, $b] = [$client(), $client()];
        $limits = [1, 2, 5, null];
        foreach ($limits as $from) {
            foreach ($limits as $to) {
                $lock = $a->acquire('converted', 0.0, $from === null, $from);
                self::assertNotNull($lock);
                $token = $lock->token();
                self::assertTrue($lock->convert($to === null, 0.0, $to));
                self::assertSame([$to, $to !== 1, true], [$lock->limit(), $lock->isShared(), $lock->isHeld()]);
                $seen = $b->inspect('converted');
                self::assertSame([$to, $to === 1 ? 'exclusive' : 'shared'], [$seen->limit, $seen->mode]);
                // Only a change that allows fewer holders gets a new token.
                self::assertSame(($to ?? INF) < ($from ?? INF), $lock->token() > $token);
                self::assertTrue($lock->release());
            }
        }
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testAConversionToFewerHoldersWaitsForTheOthers(callable $client): void
    {
        $clients = [$client(), $client(), $client(), $client()];
        [$mine, $second, $third] = array_map(
            fn (int $at): ?Lock => $clients[$at]->acquire('fewer', 0.0, atMost: 4),
            [0, 1, 2],
        );
        self::assertNotNull($mine);
        $token = $mine->token();
        self::assertFalse($mine->convert(timeout: 0.0, atMost: 2));
        self::assertFalse($mine->convert(timeout: 0.05, atMost: 2));
        self::assertSame([4, true, $token], [$mine->limit(), $mine->isHeld(), $mine->token()]);

        $meanwhile = Meanwhile::does(fn () => $second?->release());
        self::assertTrue($mine->convert(timeout: 30.0, atMost: 2));
        unset($meanwhile);
        self::assertSame([2, true], [$mine->limit(), $mine->isHeld()]);
        self::assertGreaterThan($token, $mine->token());
        self::assertNull($clients[3]->acquire('fewer', 0.0, atMost: 4));

        self::assertTrue($mine->convert(atMost: 3));
        self::assertTrue($clients[3]->acquire('fewer', 0.0, atMost: 4)?->isHeld());
        self::assertFalse($mine->convert(timeout: 0.0));
        self::assertTrue($third?->release());
        self::assertTrue($mine->convert(timeout: 30.0));
        self::assertFalse($mine->isShared());
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testAHandlerThatThrowsDuringAConversionLeavesTheLimit(callable $client): void
    {
        [$a, $b] = [$client(), $client()];
        $mine = $a->acquire('unconverted', 0.0, atMost: 3);
        $other = $b->acquire('unconverted', 0.0, atMost: 4);
        $meanwhile = Meanwhile::does(fn () => throw new RuntimeException('enough'));
        try {
            $mine?->convert(timeout: 30.0);
            self::fail('the handler\'s exception is lost');
        } catch (RuntimeException $e) {
            self::assertSame('enough', $e->getMessage());
        }
        $other?->release();
        self::assertSame([3, true], [$mine?->limit(), $mine?->isHeld()]);
        self::assertSame([3, 0], [$b->inspect('unconverted')->limit, $b->inspect('unconverted')->waiters]);
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testAConversionThatIsGrantedBeforeAHandlerThrowsIsUndone(callable $client): void
    {
        [$a, $b, $c] = [$client(), $client(), $client()];
        $mine = $a->acquire('undone', 0.0, atMost: 4);
        $others = [$b->acquire('undone', 0.0, atMost: 5), $c->acquire('undone', 0.0, atMost: 5)];
        pcntl_signal(SIGUSR2, static function () use ($b, &$others): void {
            pcntl_signal(SIGUSR2, SIG_DFL);
            $others = [];
            Deadline::until('the lock is converted', fn (): bool => $b->inspect('undone')->limit === 2);
            throw new RuntimeException('enough');
        });
        // The handler runs as soon as handlers may run during the conversion.
        posix_kill(getmypid(), SIGUSR2);
        try {
            $mine?->convert(timeout: 30.0, atMost: 2);
            self::fail('the handler\'s exception is lost');
        } catch (RuntimeException $e) {
            self::assertSame('enough', $e->getMessage());
        }
        self::assertSame([4, true], [$mine?->limit(), $mine?->isHeld()]);
        self::assertSame(4, $b->inspect('undone')->limit);
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testSignalHandlersThatThrowAtAnyMomentLeaveNoLimitInDoubt(callable $client): void
    {
        [$a, $b] = [$client(), $client()];
        $lock = $a->acquire('stormy', 0.0, atMost: 2);
        $storm = new Storm();
        try {
            $struck = 0;
            for ($time = 0; $time < 300; $time++) {
                $limit = [1, 2, 3, null][$time % 4];
                $struck += (int) $storm->strikes(fn () => $lock?->convert($limit === null, 1.0, $limit));
                self::assertTrue($lock?->isHeld());
                self::assertSame($lock->limit(), $b->inspect('stormy')->limit);
            }
            self::assertGreaterThan(0, $struck);
        } finally {
            $storm->end();
        }
        self::assertTrue($lock->release());
    }

    /**
     * @dataProvider transports
     * @param callable(): Client $client
     */
    public function testSynchronizedHoldsTheLimitedLockWhileTheBodyRuns(callable $client): void
    {
        [$a, $b, $c] = [$client(), $client(), $client()];
        $result = $a->synchronized('body', function (Lock $lock) use ($b, $c): string {
            self::assertSame(2, $lock->limit());
            return $b->synchronized('body', function () use ($c): string {
                try {
                    $c->synchronized('body', fn () => self::fail('three holders at once'), 0.0, atMost: 2);
                } catch (TimeoutException) {
                    return 'two';
                }
            }, 0.0, atMost: 2);
        }, 0.0, atMost: 2);
        self::assertSame('two', $result);
        self::assertFalse($c->inspect('body')->isHeld());
    }

    /**
     * @dataProvider transports
     * @param callable(?string=): Client $client
     */
    public function testListShowsTheLimitsOfHoldersAndWaiters(callable $client): void
    {
        [$a, $b, $c] = [$client('three'), $client('two'), $client('waiter')];
        $locks = [$a->acquire('listed', 0.0, atMost: 3), $b->acquire('listed', 0.0, atMost: 2)];
        $seen = null;
        $meanwhile = Meanwhile::does(function () use ($a, &$locks, &$seen): void {
            [$seen] = [...$a->list('listed')];
            $locks = [];
        });
        self::assertSame(7, $c->acquire('listed', 30.0, atMost: 7)?->limit());
        self::assertSame(['shared', 2], [$seen?->mode, $seen?->limit]);
        $limits = fn (array $parties): array =>
            array_map(fn ($party): array => [$party->owner, $party->mode, $party->limit], $parties);
        self::assertEqualsCanonicalizing([['three', null, 3], ['two', null, 2]], $limits($seen?->holders ?? []));
        // On a slow machine the signal may come before the wait has begun: then there is no waiter
        // yet.
        self::assertContains($limits($seen?->waiters ?? []), [[['waiter', 'shared', 7]], []]);
    }

    /**
     * @dataProvider served
     * @param callable(): Client $client
     */
    public function testAmongManyProcessesThereAreNeverMoreThanTheLimit(callable $client): void
    {
        $directory = self::server()->directory() . '/holders-' . bin2hex(random_bytes(4));
        mkdir($directory);
        $children = [];
        foreach (range(1, 6) as $number) {
            $children[] = Child::start(function (callable $say) use ($client, $directory, $number): void {
                if ($number % 2 === 0) {
                    // So that half of the mixture uses the other transport.
                    $client();
                }
                $mine = $client();
                for ($time = 0; $time < 50; $time++) {
                    $mine->synchronized('many', function () use ($directory, $number): void {
                        touch("$directory/$number");
                        $holders = count(glob("$directory/*") ?: []);
                        unlink("$directory/$number");
                        if ($holders > 3) {
                            throw new RuntimeException("$holders holders at once");
                        }
                    }, 30.0, atMost: 3);
                }
            });
        }
        foreach ($children as $child) {
            self::assertSame('done', $child->hear());
        }
        rmdir($directory);
    }

    /**
     * @dataProvider served
     * @param callable(): Client $client
     */
    public function testTheSlotOfAKilledHolderIsFreeAtOnce(callable $client): void
    {
        $hold = function (callable $say, callable $pause) use ($client): void {
            $lock = $client()->acquire('killed', 30.0, atMost: 2);
            $say($lock?->isHeld() ? 'held' : 'not held');
            $pause();
        };
        [$first, $second] = [Child::start($hold), Child::start($hold)];
        self::assertSame(['held', 'held'], [$first->hear(), $second->hear()]);
        $third = Child::start($hold);
        $watcher = $client();
        Deadline::until('the third waits', fn (): bool => $watcher->inspect('killed')->waiters === 1);
        $first->kill();
        self::assertSame('held', $third->hear());
        self::assertNull($watcher->acquire('killed', 0.0, atMost: 2));
        $third->kill();
        $lock = $watcher->acquire('killed', 30.0, atMost: 2);
        self::assertTrue($lock?->isHeld());
        // Only what was held alone may be left half done.
        self::assertFalse($lock->orphaned());
    }

    /**
     * @dataProvider served
     * @param callable(): Client $client
     */
    public function testGrantsOfAnyModeTellThatAnExclusiveHolderVanished(callable $client): void
    {
        foreach ([1, 3, null] as $limit) {
            $name = 'orphaned/' . ($limit ?? 'shared');
            $holder = Child::start(function (callable $say, callable $pause) use ($client, $name): void {
                $lock = $client()->acquire($name, 30.0);
                $say($lock?->isHeld() ? 'held' : 'not held');
                $pause();
            });
            self::assertSame('held', $holder->hear());
            $holder->kill();
            $lock = $client()->acquire($name, 30.0, $limit === null, $limit);
            self::assertTrue($lock?->orphaned());
            self::assertTrue($lock->release());
            // It is told to all until one of them has had the lock alone.
            $alone = $client()->acquire($name, 30.0);
            self::assertSame($limit !== 1, $alone?->orphaned());
            self::assertTrue($alone->release());
            self::assertFalse($client()->acquire($name, 30.0, $limit === null, $limit)?->orphaned());
        }
    }

    public function testOneCallConnectsAndAcquires(): void
    {
        foreach ([Client::connectAndAcquire(...), Client::connectAndAcquireByFfi(...)] as $connectAndAcquire) {
            $url = self::server()->tcp();
            $first = $connectAndAcquire($url, 'patient', 30.0, atMost: 2);
            self::assertSame([2, true], [$first?->limit(), $first?->isHeld()]);
            $second = $connectAndAcquire($url, 'patient', 30.0, atMost: 2);
            self::assertNull($connectAndAcquire($url, 'patient', 0.0, atMost: 2));
            $meanwhile = Meanwhile::does(fn () => $first->release());
            self::assertTrue($connectAndAcquire($url, 'patient', 30.0, atMost: 2)?->isHeld());
            unset($meanwhile);
            self::assertTrue($second?->release());
        }
    }
}
