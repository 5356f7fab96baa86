<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Illuminate\Contracts\Cache\Lock;
use Illuminate\Contracts\Cache\LockProvider;
use Illuminate\Contracts\Cache\LockTimeoutException;
use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\NotHeldException;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use RuntimeException;

/**
 * The locks with Laravel's real contracts and a real server. Two providers stand for two processes.
 */
final class LockdLockTest extends TestCase
{
    private Server $server;
    private LockdLockProvider $ours;
    private LockdLockProvider $theirs;

    protected function setUp(): void
    {
        self::assertTrue(
            interface_exists(LockProvider::class),
            'illuminate/contracts is missing: install it with Composer, or php-illuminate-contracts'
        );
        $this->server = new Server();
        $this->ours = new LockdLockProvider($this->server->tcp());
        $this->theirs = new LockdLockProvider($this->server->unix(), 'theirs');
    }

    public function testImplementsLaravelsContracts(): void
    {
        self::assertInstanceOf(LockProvider::class, $this->ours);
        self::assertInstanceOf(Lock::class, $this->ours->lock('report', 10));
    }

    public function testExcludesOtherProcessesUntilReleased(): void
    {
        $lock = $this->ours->lock('report');
        self::assertTrue($lock->get());
        self::assertFalse($this->theirs->lock('report')->get());
        self::assertTrue($lock->release());
        self::assertFalse($lock->release());
        self::assertTrue($this->theirs->lock('report')->get());
        self::assertFalse($lock->get());
    }

    public function testExcludesItsOwnProcess(): void
    {
        $lock = $this->ours->lock('report', 0, 'me');
        self::assertTrue($lock->get());
        self::assertFalse($lock->get());
        $other = $this->ours->lock('report', 0, 'you');
        self::assertFalse($other->get());
        self::assertFalse($other->release());
        self::assertFalse($this->theirs->lock('report')->get());
    }

    public function testStaysHeldWhenItsObjectIsDestroyed(): void
    {
        self::assertTrue($this->ours->lock('report', 1)->get());
        gc_collect_cycles();
        self::assertFalse($this->theirs->lock('report')->get());
    }

    public function testIsReleasedWhenItsProviderIsDestroyed(): void
    {
        $this->ours->lock('report')->get();
        unset($this->ours);
        self::assertTrue($this->theirs->lock('report')->block(10));
    }

    public function testKnowsItsOwner(): void
    {
        $lock = $this->ours->lock('report', 0, 'me');
        self::assertSame('me', $lock->owner());
        self::assertFalse($lock->isOwnedByCurrentProcess());
        $lock->get();
        self::assertTrue($lock->isOwnedByCurrentProcess());
        self::assertTrue($lock->isOwner());
        self::assertFalse($this->ours->lock('report')->isOwner());
        self::assertFalse($this->theirs->lock('report', 0, 'me')->isOwner());

        $names = [$this->ours->lock('report')->owner(), $this->ours->lock('report')->owner()];
        self::assertNotSame($names[0], $names[1]);
        self::assertNotContains('', $names);
    }

    public function testCallsTheCallbackWhileHolding(): void
    {
        $result = $this->ours->lock('report')->get(function (): string {
            self::assertFalse($this->theirs->lock('report')->get(fn () => self::fail('two holders at once')));
            return 'done';
        });
        self::assertSame('done', $result);
        self::assertSame(0, $this->theirs->lock('report')->block(0, fn (): int => 0));
        self::assertTrue($this->ours->lock('report')->get());
    }

    public function testReleasesWhenTheCallbackThrows(): void
    {
        foreach (['get' => [], 'block' => [1]] as $method => $arguments) {
            try {
                $this->ours->lock('report')->$method(...[...$arguments, fn () => throw new RuntimeException('oops')]);
                self::fail('the exception was lost');
            } catch (RuntimeException $e) {
                self::assertSame('oops', $e->getMessage());
            }
            self::assertTrue($this->theirs->lock('report')->get(fn (): bool => true));
        }
    }

    public function testTheCallbackMayReleaseTheLock(): void
    {
        $lock = $this->ours->lock('report');
        self::assertTrue($lock->get($lock->release(...)));
    }

    public function testBlockThrowsAfterItsTimeLimit(): void
    {
        $this->theirs->lock('report')->get();
        foreach ([0, 0.01] as $seconds) {
            try {
                $this->ours->lock('report')->block($seconds, fn () => self::fail('two at once'));
                self::fail('the wait did not time out');
            } catch (LockTimeoutException $e) {
                self::assertStringContainsString('report', $e->getMessage());
            }
        }
    }

    public function testDoesNotWaitForItself(): void
    {
        $this->ours->lock('report')->get();
        $this->expectException(LockTimeoutException::class);
        $this->ours->lock('report')->block(3600);
    }

    public function testWaitsItsTurn(): void
    {
        $lock = $this->ours->lock('report');
        $lock->get();
        $child = Child::start(function (): void {
            self::assertSame(7, $this->theirs->lock('report')->block(30, fn (): int => 7));
        });
        $client = Client::connect($this->server->tcp());
        Deadline::until('the child waits', fn (): bool => $client->inspect('report')->waiters === 1);
        $lock->release();
        self::assertSame('done', $child->hear());
        self::assertFalse($client->inspect('report')->orphaned);
    }

    public function testIsRestoredOnlyInItsOwnProcess(): void
    {
        $this->ours->lock('report', 60, 'me')->get();
        $lock = $this->ours->restoreLock('report', 'me');
        self::assertSame('me', $lock->owner());
        foreach ([[$this->ours, 'you'], [$this->theirs, 'me']] as [$provider, $owner]) {
            try {
                $provider->restoreLock('report', $owner);
                self::fail('the lock was restored');
            } catch (NotHeldException) {
                self::assertTrue($lock->isOwner());
            }
        }
        self::assertTrue($lock->release());
        self::assertTrue($this->theirs->lock('report')->get());
    }

    public function testForceReleaseWorksOnlyInItsOwnProcess(): void
    {
        $this->ours->lock('report')->forceRelease();
        $this->ours->lock('report')->get();
        try {
            $this->theirs->lock('report')->forceRelease();
            self::fail('the lock was released');
        } catch (NotHeldException) {
            self::assertFalse($this->theirs->lock('report')->get());
        }
        $this->ours->lock('report')->forceRelease();
        self::assertTrue($this->theirs->lock('report')->get());
    }

    public function testALockOfAServerThatIsGoneIsNotHeld(): void
    {
        $lock = $this->ours->lock('report');
        $lock->get();
        $this->server->kill();
        self::assertFalse($lock->isOwner());
        self::assertFalse($lock->release());
        $this->expectException(ConnectException::class);
        $lock->get();
    }

    public function testReportsALockThatWasLostWhileTheCallbackRan(): void
    {
        $this->expectException(ConnectionLostException::class);
        $this->ours->lock('report')->get(function (): void {
            $this->server->kill();
        });
    }

    public function testReconnectsOnlyForNewLocks(): void
    {
        $lock = $this->ours->lock('report');
        $another = $this->ours->lock('another');
        $lock->get();
        $another->get();
        $this->server->restart();
        self::assertTrue($lock->get());
        self::assertTrue($lock->isOwner());
        self::assertFalse($another->isOwner());
        self::assertTrue($this->theirs->lock('another')->get());
        $this->expectException(NotHeldException::class);
        $another->forceRelease();
    }

    public function testAForkedChildDoesNotHoldItsParentsLocks(): void
    {
        $lock = $this->ours->lock('report');
        $lock->get();
        $child = Child::start(function () use ($lock): void {
            self::assertSame([false, false, false], [$lock->isOwner(), $lock->get(), $lock->release()]);
            self::assertTrue($this->ours->lock('another')->get());
        });
        self::assertSame('done', $child->hear());
        self::assertTrue($lock->isOwner());
        self::assertFalse($this->theirs->lock('report')->get());
    }

    public function testAcceptsAClientInsteadOfAnAddress(): void
    {
        $client = Client::connect($this->server->tcp());
        $lock = (new LockdLockProvider($client))->lock('report');
        self::assertTrue($lock->get());
        $client->close();
        self::assertFalse($lock->isOwner());
        $this->expectException(ConnectionLostException::class);
        $lock->get();
    }

    public function testRefusesAnInvalidAddress(): void
    {
        $this->expectException(InvalidArgumentException::class);
        new LockdLockProvider('redis://localhost');
    }
}
