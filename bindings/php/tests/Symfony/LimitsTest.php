<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Client;
use Lockd\Symfony\LockdStore;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use Symfony\Component\Lock\Exception\InvalidArgumentException;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\Key;
use Symfony\Component\Lock\LockFactory;

/** Waits that have a limit, and locks that Symfony does not release by itself. */
final class LimitsTest extends TestCase
{
    private Server $server;
    private LockdStore $store;
    private Key $key;
    /** Another key of the same resource. */
    private Key $other;

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->store = $this->store();
        $this->key = new Key('resource');
        $this->other = new Key('resource');
    }

    private function store(): LockdStore
    {
        return new LockdStore(Application::dsn($this->server));
    }

    private function client(): Client
    {
        return Client::connect($this->server->tcp());
    }

    /** @param callable(): mixed $act */
    private static function assertConflict(callable $act): void
    {
        try {
            $act();
        } catch (LockConflictedException $e) {
            self::assertNotSame('', $e->getMessage());
            return;
        }
        self::fail('there was no conflict');
    }

    private function assertHolds(bool $key, bool $other): void
    {
        self::assertSame([$key, $other], [$this->store->exists($this->key), $this->store->exists($this->other)]);
    }

    /** @dataProvider boundedWaits */
    public function testAWaitEndsAfterItsLimit(string $held, string $wait): void
    {
        $theirs = $this->store();
        $theirs->$held($this->other);
        try {
            $this->store->withWait(0.02)->$wait($this->key);
            self::fail('a lock was granted twice');
        } catch (LockConflictedException $e) {
            self::assertStringContainsString('held by others, after a wait of 0.02 s', $e->getMessage());
        }
        $this->assertHolds(false, false);
        $theirs->delete($this->other);
        $this->store->withWait(0.02)->$wait($this->key);
        $this->assertHolds(true, false);
    }

    /** @return array<string, array{string, string}> */
    public function boundedWaits(): array
    {
        return [
            'a writer for a writer' => ['save', 'waitAndSave'],
            'a writer for a reader' => ['saveRead', 'waitAndSave'],
            'a reader for a writer' => ['save', 'waitAndSaveRead'],
        ];
    }

    public function testAReaderThatWaitsTooLongToWriteStaysAReader(): void
    {
        $theirs = $this->store();
        $theirs->saveRead($this->other);
        $this->store->saveRead($this->key);
        try {
            $this->store->withWait(0.02)->waitAndSave($this->key);
            self::fail('a lock was granted twice');
        } catch (LockConflictedException $e) {
            self::assertStringContainsString('others share', $e->getMessage());
        }
        $this->assertHolds(true, false);
        self::assertTrue($theirs->exists($this->other));
    }

    public function testABoundedAcquireOfSymfonysLockThrows(): void
    {
        $this->store->save($this->key);
        $lock = (new LockFactory($this->store()->withWait(0.02)))->createLock('resource');
        self::assertFalse($lock->acquire());
        self::assertConflict(fn () => $lock->acquire(true));
        self::assertConflict(fn () => $lock->acquireRead(true));
        $this->store->delete($this->key);
        self::assertTrue($lock->acquire(true));
    }

    public function testStoresThatDifferInTheirWaitAreOneOwner(): void
    {
        $patient = $this->store->withWait(60.0);
        $this->store->save($this->key);
        self::assertConflict(fn () => $patient->waitAndSave($this->other));
        self::assertTrue($patient->exists($this->key));
        $patient->saveRead($this->key);
        $this->store->saveRead($this->other);
        $this->assertHolds(true, true);
        $patient->delete($this->key);
        $this->store->delete($this->other);
        self::assertSame(0, $this->client()->inspect('resource')->holders);
        foreach ([-1.0, NAN] as $seconds) {
            try {
                $this->store->withWait($seconds);
                self::fail('an invalid limit was accepted');
            } catch (InvalidArgumentException $e) {
                self::assertStringContainsString('seconds', $e->getMessage());
            }
        }
    }

    public function testWithoutAutomaticReleaseALockEndsWithItsKey(): void
    {
        $factory = new LockFactory($this->store);
        $lock = $factory->createLockFromKey($this->key, 300.0, false);
        self::assertTrue($lock->acquire());
        unset($lock);
        $this->assertHolds(true, false);
        // Another object with the same key goes on with the lock.
        self::assertTrue($factory->createLockFromKey($this->key, 300.0, false)->isAcquired());
        $this->assertHolds(true, false);
        unset($this->key);
        self::assertSame(0, $this->client()->inspect('resource')->holders);

        $lock = $factory->createLock('resource', 300.0, false);
        self::assertTrue($lock->acquire());
        unset($lock);
        self::assertSame(0, $this->client()->inspect('resource')->holders);
    }

    public function testWithoutAutomaticReleaseALockEndsWithItsProcess(): void
    {
        $child = Child::start(function (callable $say, callable $pause): void {
            $lock = (new LockFactory($this->store()))->createLockFromKey($this->key, 300.0, false);
            $say($lock->acquire() ? 'held' : 'busy');
            $pause();
        });
        self::assertSame('held', $child->hear());
        self::assertConflict(fn () => $this->store->save($this->other));
        $child->kill();
        $this->store->waitAndSave($this->other);
        $this->assertHolds(false, true);
    }
}
