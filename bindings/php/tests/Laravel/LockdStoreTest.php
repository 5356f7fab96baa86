<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use BadMethodCallException;
use Illuminate\Bus\UniqueLock;
use Illuminate\Cache\ArrayStore;
use Illuminate\Cache\Repository;
use Illuminate\Contracts\Cache\LockProvider;
use Illuminate\Contracts\Cache\LockTimeoutException;
use Illuminate\Queue\Middleware\WithoutOverlapping;
use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\NotHeldException;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Laravel\LockdStore;
use Lockd\Laravel\LockdTaggedStore;
use Lockd\Tests\Laravel\contracts\TouchableStore;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use stdClass;

/** The driver `lockd` in Laravel's cache. Two applications stand for two processes. */
final class LockdStoreTest extends TestCase
{
    private Server $server;
    private Repository $ours;
    private Repository $theirs;

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->theirs = $this->application()['cache']->store('lockd');
        $this->ours = $this->application()['cache']->store('lockd');
    }

    private function application(array $cache = []): Application
    {
        return Application::with(['lockd' => ['url' => $this->server->tcp()], 'cache' => $cache]);
    }

    public function testItsLocksAreThoseOfTheServer(): void
    {
        self::assertInstanceOf(LockProvider::class, $this->ours->getStore());
        $lock = $this->ours->lock('report', 10);
        self::assertTrue($lock->get());
        self::assertFalse($this->theirs->lock('report', 10)->get());
        self::assertTrue(Client::connect($this->server->tcp())->inspect('shop_cache_report')->isHeld());
        self::assertSame($lock->owner(), $this->ours->restoreLock('report', $lock->owner())->owner());
        self::assertTrue($lock->release());
        self::assertSame('done', $this->theirs->lock('report')->block(5, fn (): string => 'done'));
    }

    public function testTheSameNameTwiceInOneProcess(): void
    {
        self::assertTrue($this->ours->lock('report')->get());
        self::assertFalse($this->ours->lock('report')->get());
        self::assertFalse($this->ours->lock('report')->get(fn () => self::fail('two at once')));
        $this->expectException(LockTimeoutException::class);
        $this->ours->lock('report')->block(3600);
    }

    public function testALockTellsItsState(): void
    {
        [$ours, $theirs] = [$this->ours->lock('report', 10, 'me'), $this->theirs->lock('report', 10, 'you')];
        self::assertSame([false, false], [$ours->isLocked(), $theirs->isLocked()]);
        self::assertFalse($ours->refresh());
        self::assertTrue($ours->betweenBlockedAttemptsSleepFor(50)->block(1));
        self::assertSame([true, true], [$ours->isLocked(), $theirs->isLocked()]);
        self::assertSame([true, false], [$ours->isOwnedByCurrentProcess(), $theirs->isOwnedByCurrentProcess()]);
        self::assertSame([true, false, false], array_map($ours->isOwnedBy(...), ['me', 'you', null]));
        self::assertFalse($theirs->isOwnedBy('me'));
        self::assertSame([true, false], [$ours->refresh(60), $theirs->refresh(60)]);
        self::assertTrue($ours->isLocked());
    }

    public function testALockOfAnotherProcessIsNotRestored(): void
    {
        self::assertTrue($this->theirs->lock('report', 10, 'them')->get());
        $this->expectException(NotHeldException::class);
        $this->ours->restoreLock('report', 'them');
    }

    public function testLocksAreNotFlushed(): void
    {
        self::assertTrue($this->ours->lock('report')->get());
        try {
            $this->ours->flush();
            $this->ours->flushLocks();
            self::fail('the locks were flushed');
        } catch (BadMethodCallException $e) {
            self::assertStringContainsString('flushed', $e->getMessage());
        }
        self::assertFalse($this->theirs->lock('report')->get());
    }

    public function testTheValuesAreThoseOfTheOtherStore(): void
    {
        $app = $this->application();
        [$values, $ours] = [$app['cache']->store('array'), $app['cache']->store('lockd')];
        $ours->put('color', 'red', 60);
        self::assertSame('red', $values->get('color'));
        self::assertSame([false, true], [$ours->add('color', 'blue', 60), $ours->add('size', 3, 60)]);
        self::assertSame([4, 3], [$ours->increment('size'), $ours->decrement('size')]);
        self::assertTrue($ours->putMany(['a' => 1, 'b' => 2], 60) && $ours->forever('c', 3));
        self::assertSame(['a' => 1, 'b' => 2, 'c' => 3, 'd' => null], $ours->many(['a', 'b', 'c', 'd']));
        self::assertTrue($ours->forget('a'));
        self::assertNull($values->get('a'));
        self::assertSame(7, $ours->remember('seven', 60, fn (): int => 7));
        self::assertInstanceOf(LockdTaggedStore::class, $ours->getStore());
        $ours->tags(['people', 'authors'])->put('name', 'Ann', 60);
        self::assertSame('Ann', $values->tags(['people', 'authors'])->get('name'));
        self::assertSame('', $ours->getPrefix());
        $ours->flush();
        self::assertNull($values->get('color'));
    }

    public function testWhatTheOtherStoreCannotDoIsAnError(): void
    {
        $directory = $this->server->directory();
        $store = ['driver' => 'file', 'path' => $directory];
        $ours = $this->application(['default' => 'file', 'stores' => ['file' => $store]])['cache']->store('lockd');
        self::assertFalse($ours->supportsTags());
        self::assertSame([true, false], [$ours->add('color', 'red', 60), $ours->add('color', 'blue', 60)]);
        self::assertSame($directory, $ours->getDirectory());
        $ours->flush();
        $this->expectException(BadMethodCallException::class);
        $ours->getStore()->touch('color', 60);
    }

    public function testAStoreOfLaravel13(): void
    {
        $values = new class extends ArrayStore implements TouchableStore {
            public function touch($key, $seconds): bool
            {
                return $this->put($key, "$seconds s", $seconds);
            }
        };
        $locks = new LockdLockProvider($this->server->tcp());
        $ours = new class ($values, $locks) extends LockdStore implements TouchableStore {
        };
        self::assertTrue($ours->touch('color', 60));
        self::assertSame('60 s', $ours->get('color'));
    }

    public function testAStoreMayHaveSettingsOfItsOwn(): void
    {
        $store = ['driver' => 'lockd', 'store' => 'array', 'prefix' => '', 'owner' => 'mine'];
        $ours = $this->application(['default' => 'mine', 'stores' => ['mine' => $store]])['cache']->store();
        self::assertTrue($ours->lock('report')->get());
        $locks = [...Client::connect($this->server->tcp())->list()];
        self::assertSame(['report', 'mine'], [$locks[0]->name, $locks[0]->holders[0]->owner]);
    }

    public function testAStoreThatWouldKeepItsOwnValuesIsRefused(): void
    {
        foreach ([[], ['store' => 'lockd']] as $store) {
            $store += ['driver' => 'lockd'];
            $app = $this->application(['default' => 'lockd', 'stores' => ['lockd' => $store]]);
            try {
                $app['cache']->store();
                self::fail('it keeps its values in itself');
            } catch (InvalidArgumentException $e) {
                self::assertStringContainsString("'store' => 'redis'", $e->getMessage());
            }
        }
        // As Laravel 11 and later pass the settings of a store that names no other.
        $app = $this->application(['stores' => ['lockd' => ['driver' => 'lockd', 'store' => 'lockd']]]);
        self::assertTrue($app['cache']->store('lockd')->put('color', 'red', 60));
    }

    /** Another process would release these, or they must outlast this one, or expire. */
    public function testLocksThatCannotBelongToThisProcessAreRefused(): void
    {
        $unique = new UniqueLock($this->ours);
        $calls = [
            'uniqueVia()' => fn () => $unique->acquire(new stdClass()),
            'uniqueVia' => fn () => $this->ours->restoreLock('laravel_unique_job:Job', 'owner'),
            'LOCKD_SCHEDULER=true' => fn () => $this->ours->getStore()->lock('framework/schedule-0123', 3600),
            'PULSE_CACHE_DRIVER' => fn () => $this->ours->getStore()->lock('laravel:pulse:check', 1),
            'SCHEDULE_CACHE_DRIVER' => fn () => $this->ours->lock('framework\\schedule-0123', 3600),
        ];
        foreach ($calls as $advice => $call) {
            try {
                $call();
                self::fail("it was not refused: $advice");
            } catch (InvalidArgumentException $e) {
                self::assertStringContainsString($advice, $e->getMessage());
            }
        }
        self::assertSame([], [...Client::connect($this->server->tcp())->list()]);
    }

    /** Jobs that wait for each other lock and release in the worker. */
    public function testJobsThatMustNotOverlap(): void
    {
        $app = $this->application(['default' => 'lockd', 'stores' => ['lockd' => [
            'driver' => 'lockd',
            'store' => 'array',
        ]]]);
        $app->alias('cache.store', \Illuminate\Contracts\Cache\Repository::class);
        $job = new Job();
        $middleware = (new WithoutOverlapping('invoice'))->releaseAfter(5);
        $ran = 0;
        $middleware->handle($job, function ($job) use ($middleware, &$ran): void {
            $ran++;
            $middleware->handle($job, fn () => self::fail('two at once'));
        });
        $middleware->handle($job, function () use (&$ran): void {
            $ran++;
        });
        self::assertSame([2, 1], [$ran, $job->released]);
    }
}
