<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use DateInterval;
use Illuminate\Contracts\Redis\LimiterTimeoutException;
use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\RefusedException;
use Lockd\Laravel\LockdFunnel;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use RuntimeException;

/** The funnel with a real server. Two providers stand for two processes. */
final class LockdFunnelTest extends TestCase
{
    private Server $server;
    private LockdLockProvider $ours;
    private LockdLockProvider $theirs;

    protected function setUp(): void
    {
        self::assertTrue(
            class_exists(LimiterTimeoutException::class),
            'illuminate/contracts is missing: install it with Composer, or php-illuminate-contracts'
        );
        $this->server = new Server();
        $this->ours = new LockdLockProvider($this->server->tcp());
        $this->theirs = new LockdLockProvider($this->server->unix(), 'theirs');
    }

    private function try(LockdLockProvider $provider, int $limit = 2): LockdFunnel
    {
        return $provider->funnel('gpu')->limit($limit)->block(0);
    }

    /** @param callable(): mixed $act */
    private static function assertFull(callable $act): void
    {
        try {
            $act();
        } catch (LimiterTimeoutException $e) {
            self::assertStringContainsString('gpu', $e->getMessage());
            return;
        }
        self::fail('there was a slot');
    }

    public function testCallsTheCallbackWhileHoldingASlot(): void
    {
        $client = Client::connect($this->server->tcp());
        foreach (range(1, 3) as $time) {
            $result = $this->try($this->ours)->then(function () use ($client): string {
                self::assertSame(0, func_num_args());
                self::assertSame([2, 1], [$client->inspect('gpu')->limit, $client->inspect('gpu')->holders]);
                return 'done';
            });
            self::assertSame('done', $result);
            self::assertFalse($client->inspect('gpu')->isHeld());
        }
    }

    public function testNeverMoreThanTheLimitAlsoWithinOneProcess(): void
    {
        $result = $this->try($this->ours)->then(fn () => $this->try($this->ours)->then(function (): string {
            self::assertFull(fn () => $this->try($this->ours)->then(fn () => self::fail('three at once')));
            self::assertFull(fn () => $this->try($this->theirs)->then(fn () => self::fail('three at once')));
            // The two that run have not agreed to three.
            self::assertFull(fn () => $this->try($this->theirs, 3)->then(fn () => self::fail('three at once')));
            return 'two';
        }));
        self::assertSame('two', $result);
        self::assertSame('one', $this->try($this->theirs, 1)->then(fn (): string => 'one'));
    }

    public function testWithoutASlotTheFailureIsCalled(): void
    {
        $this->try($this->theirs, 1)->then(function (): void {
            $failure = function (LimiterTimeoutException $e): string {
                self::assertStringContainsString('gpu', $e->getMessage());
                return 'later';
            };
            foreach ([0, 0.01] as $seconds) {
                $funnel = $this->try($this->ours)->block($seconds);
                self::assertSame('later', $funnel->then(fn () => self::fail('two at once'), $failure));
            }
        });
    }

    public function testWhatTheCallbackThrowsIsNoFailureOfTheFunnel(): void
    {
        foreach ([new RuntimeException('oops'), new LimiterTimeoutException('of another funnel')] as $exception) {
            try {
                $this->try($this->ours, 1)->then(fn () => throw $exception, fn () => self::fail('it had its slot'));
                self::fail('the exception was lost');
            } catch (RuntimeException | LimiterTimeoutException $e) {
                self::assertSame($exception, $e);
            }
            self::assertTrue($this->try($this->theirs, 1)->then(fn (): bool => true));
        }
    }

    public function testWaitsItsTurn(): void
    {
        $client = Client::connect($this->server->tcp());
        $children = [];
        foreach (range(1, 3) as $number) {
            $children[] = Child::start(function (callable $say, callable $pause) use ($number): void {
                $funnel = (new LockdLockProvider($this->server->tcp()))->funnel('gpu')->limit(2)->block(30);
                $funnel->then(function () use ($say, $pause, $number): void {
                    $say("$number runs");
                    $pause();
                });
            });
            Deadline::until('it runs or waits', fn (): bool =>
                ($seen = $client->inspect('gpu'))->holders + $seen->waiters === $number);
        }
        self::assertSame(['1 runs', '2 runs'], [$children[0]->hear(), $children[1]->hear()]);
        self::assertSame([2, 1], [$client->inspect('gpu')->holders, $client->inspect('gpu')->waiters]);
        // A slot is free when the callback has ended, and also when its process is killed.
        $children[1]->kill();
        self::assertSame('3 runs', $children[2]->hear());
        $children[0]->goOn();
        self::assertSame('done', $children[0]->hear());
        $children[2]->goOn();
        self::assertSame('done', $children[2]->hear());
    }

    public function testWaitsThreeSecondsUnlessToldOtherwise(): void
    {
        $this->theirs->lock('gpu')->get();
        $begin = microtime(true);
        self::assertFull(fn () => $this->ours->funnel('gpu')->limit(2)->then(fn () => self::fail('two at once')));
        self::assertGreaterThan(2.9, microtime(true) - $begin);
    }

    public function testWhatHasNoMeaningHereIsIgnored(): void
    {
        $result = $this->ours->funnel('gpu')->releaseAfter(1)->releaseAfter(new DateInterval('PT1S'))->sleep(100)
            ->limit(1)->block(0)->then(fn (): int => 7);
        self::assertSame(7, $result);
    }

    public function testALockOfTheSameNameKeepsAllOut(): void
    {
        $lock = $this->ours->lock('gpu');
        $lock->get();
        foreach ([$this->ours, $this->theirs] as $provider) {
            self::assertFull(fn () => $this->try($provider)->then(fn () => self::fail('not alone')));
        }
        $lock->release();
        $this->try($this->ours)->then(function () use ($lock): void {
            self::assertFalse($this->theirs->lock('gpu')->get());
            self::assertFalse($lock->get());
        });
        self::assertTrue($lock->get());
    }

    public function testSaysThatThisProcessHoldsAllSlotsItself(): void
    {
        $this->ours->lock('gpu')->get();
        foreach ([0, 3600] as $seconds) {
            try {
                $this->ours->funnel('gpu')->limit(1)->block($seconds)->then(fn () => self::fail('not alone'));
                self::fail('there was a slot');
            } catch (LimiterTimeoutException $e) {
                self::assertStringContainsString('this process holds', $e->getMessage());
                self::assertStringNotContainsString('within', $e->getMessage());
            }
        }
        $failure = static fn (LimiterTimeoutException $e): string => $e->getMessage();
        $said = $this->try($this->ours)->then(fn () => self::fail('not alone'), $failure);
        self::assertStringContainsString('this process holds', $said);
    }

    public function testLimitsAreChecked(): void
    {
        foreach ([0, -1, 16_777_216] as $limit) {
            try {
                $this->ours->funnel('gpu')->limit($limit);
                self::fail('an invalid limit was accepted');
            } catch (InvalidArgumentException $e) {
                self::assertStringContainsString('at most', $e->getMessage());
            }
        }
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('limit()');
        $this->ours->funnel('gpu')->then(fn () => self::fail('it ran without a limit'));
    }

    public function testReportsASlotThatWasLostWhileTheCallbackRan(): void
    {
        $this->expectException(ConnectionLostException::class);
        $this->try($this->ours)->then(function (): void {
            $this->server->kill();
        }, fn () => self::fail('it had its slot'));
    }

    public function testAServerThatIsGoneOrOlderIsNoFullFunnel(): void
    {
        $failure = fn () => self::fail('the funnel is not full');
        $older = FakeServer::start(static fn (callable $receive, callable $send) =>
            FakeServer::hello($receive, $send, ['mode']));
        try {
            $this->try(new LockdLockProvider($older->url))->then(fn () => self::fail('it ran'), $failure);
            self::fail('an older server has granted a slot');
        } catch (RefusedException $e) {
            self::assertStringContainsString('older', $e->getMessage());
        }
        $this->server->kill();
        $this->expectException(ConnectException::class);
        $this->try($this->ours)->then(fn () => self::fail('it ran'), $failure);
    }

    public function testAProviderOfOneClientHasOneSlotOfAName(): void
    {
        $provider = new LockdLockProvider(Client::connect($this->server->tcp()));
        $result = $this->try($provider)->then(function () use ($provider): string {
            self::assertFull(fn () => $provider->funnel('gpu')->limit(2)->block(3600)->then(fn () => null));
            return $this->try($this->theirs)->then(fn (): string => 'the second slot');
        });
        self::assertSame('the second slot', $result);
    }

    public function testNothingRunsIfAHandlerClosesTheClient(): void
    {
        $client = Client::connect($this->server->tcp());
        pcntl_signal(SIGUSR2, static function () use ($client): void {
            pcntl_signal(SIGUSR2, SIG_DFL);
            $client->close();
        });
        // The handler runs at the first moment at which handlers may run.
        posix_kill(getmypid(), SIGUSR2);
        pcntl_async_signals(true);
        try {
            $this->expectException(ConnectionLostException::class);
            $this->try(new LockdLockProvider($client))->then(fn () => self::fail('it ran without a slot'));
        } finally {
            pcntl_async_signals(false);
        }
    }
}
