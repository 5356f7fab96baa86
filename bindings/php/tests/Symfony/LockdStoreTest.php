<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Client;
use Lockd\Symfony\LockdStore;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use Symfony\Component\Lock\BlockingSharedLockStoreInterface;
use Symfony\Component\Lock\Exception\InvalidArgumentException;
use Symfony\Component\Lock\Exception\LockAcquiringException;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\Exception\LockReleasingException;
use Symfony\Component\Lock\Exception\LockStorageException;
use Symfony\Component\Lock\Exception\UnserializableKeyException;
use Symfony\Component\Lock\Key;
use Symfony\Component\Lock\LockFactory;
use Symfony\Component\Lock\Store\CombinedStore;
use Symfony\Component\Lock\Strategy\UnanimousStrategy;

/** The store with Symfony's real component and a real server. */
final class LockdStoreTest extends TestCase
{
    private Server $server;
    private LockdStore $store;
    private Key $key;
    /** Another key of the same resource. */
    private Key $other;

    protected function setUp(): void
    {
        self::assertTrue(
            interface_exists(BlockingSharedLockStoreInterface::class),
            'symfony/lock is missing: install it with Composer, or php-symfony-lock'
        );
        $this->server = new Server();
        $this->store = $this->store();
        $this->key = new Key('resource');
        $this->other = new Key('resource');
    }

    private function store(): LockdStore
    {
        return new LockdStore("lockd://{$this->server->host()}:{$this->server->port()}");
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

    public function testAKeyHoldsFromSaveToDelete(): void
    {
        $this->assertHolds(false, false);
        $this->store->save($this->key);
        $this->assertHolds(true, false);
        $this->store->delete($this->key);
        $this->assertHolds(false, false);
    }

    public function testKeysOfDifferentResourcesDoNotConflict(): void
    {
        $this->other = new Key('another');
        $this->store->save($this->key);
        $this->store->delete($this->other);
        $this->assertHolds(true, false);
        $this->store->save($this->other);
        $this->assertHolds(true, true);
        $this->store->delete($this->key);
        $this->assertHolds(false, true);
    }

    public function testKeysOfTheSameResourceExcludeEachOther(): void
    {
        $this->store->save($this->key);
        self::assertConflict(fn () => $this->store->save($this->other));
        $this->assertHolds(true, false);
        $this->store->delete($this->other);
        $this->assertHolds(true, false);
        $this->store->delete($this->key);
        $this->store->save($this->other);
        $this->assertHolds(false, true);
    }

    public function testStoresExcludeEachOther(): void
    {
        $theirs = $this->store();
        $this->store->save($this->key);
        self::assertConflict(fn () => $theirs->save($this->other));
        self::assertFalse($theirs->exists($this->key));
        $this->store->delete($this->key);
        $theirs->save($this->other);
        self::assertConflict(fn () => $this->store->save($this->key));
    }

    public function testAHolderMaySaveAgain(): void
    {
        $this->store->save($this->key);
        $this->store->save($this->key);
        $this->store->waitAndSave($this->key);
        $this->assertHolds(true, false);
        $this->store->delete($this->key);
        self::assertSame([], iterator_to_array($this->client()->list()));
    }

    public function testAHeldKeyCannotBeSerialized(): void
    {
        self::assertNotSame('', serialize($this->key));
        $this->store->save($this->key);
        $this->expectException(UnserializableKeyException::class);
        serialize($this->key);
    }

    public function testACopyOfAKeyHoldsNothing(): void
    {
        $this->store->save($this->key);
        $this->other = clone $this->key;
        $this->assertHolds(true, false);
        $this->store->delete($this->other);
        self::assertConflict(fn () => $this->store->save($this->other));
        $this->assertHolds(true, false);
    }

    public function testALockIsReleasedWhenItsKeyIsDestroyed(): void
    {
        $this->store->save($this->key);
        unset($this->key);
        $this->store()->save($this->other);
        self::assertFalse($this->store->exists($this->other));
    }

    public function testACopyDoesNotKeepTheLockOfItsKey(): void
    {
        $this->store->save($this->key);
        $copy = clone $this->key;
        unset($this->key);
        self::assertSame(0, $this->client()->inspect('resource')->holders);
        $this->store->save($copy);
        self::assertTrue($this->store->exists($copy));
    }

    public function testAStoreLivesAsLongAsItsKeys(): void
    {
        $theirs = $this->store();
        $theirs->save($this->key);
        unset($theirs);
        self::assertConflict(fn () => $this->store->save($this->other));
        unset($this->key);
        $this->store->save($this->other);
        self::assertTrue($this->store->exists($this->other));
    }

    public function testReadersShareALock(): void
    {
        $third = new Key('resource');
        $this->store->saveRead($this->key);
        $this->store->saveRead($this->other);
        $this->assertHolds(true, true);
        self::assertConflict(fn () => $this->store->save($third));
        self::assertConflict(fn () => $this->store()->save($third));
        $this->assertHolds(true, true);
        $theirs = $this->store();
        $theirs->saveRead($third);
        $theirs->delete($third);

        $this->store->delete($this->key);
        $this->assertHolds(false, true);
        self::assertConflict(fn () => $theirs->save($third));
        $this->store->delete($this->other);
        $this->assertHolds(false, false);
        $theirs->save($third);
        self::assertTrue($theirs->exists($third));
    }

    public function testAWriterKeepsReadersOut(): void
    {
        $this->store->save($this->key);
        self::assertConflict(fn () => $this->store->saveRead($this->other));
        self::assertConflict(fn () => $this->store->waitAndSaveRead($this->other));
        self::assertConflict(fn () => $this->store()->saveRead($this->other));
        $this->assertHolds(true, false);
    }

    public function testALoneReaderBecomesAWriter(): void
    {
        $this->store->saveRead($this->key);
        $this->store->save($this->key);
        self::assertConflict(fn () => $this->store->saveRead($this->other));
        self::assertConflict(fn () => $this->store()->saveRead($this->other));
        $this->assertHolds(true, false);
        $this->store->delete($this->key);
        $this->store->saveRead($this->other);
        $this->assertHolds(false, true);
    }

    public function testAReaderAmongOthersStaysAReader(): void
    {
        $this->store->saveRead($this->key);
        $this->store->saveRead($this->other);
        self::assertConflict(fn () => $this->store->save($this->key));
        self::assertConflict(fn () => $this->store->waitAndSave($this->key));
        $this->store->delete($this->other);

        $theirs = $this->store();
        $theirs->saveRead($this->other);
        self::assertConflict(fn () => $this->store->save($this->key));
        $this->assertHolds(true, false);
        self::assertTrue($theirs->exists($this->other));
        $theirs->delete($this->other);
        $this->store->save($this->key);
        self::assertConflict(fn () => $theirs->saveRead($this->other));
    }

    public function testAWriterBecomesAReader(): void
    {
        $theirs = $this->store();
        $this->store->save($this->key);
        $this->store->saveRead($this->key);
        $this->store->saveRead($this->other);
        $this->assertHolds(true, true);
        $third = new Key('resource');
        $theirs->saveRead($third);
        self::assertTrue($theirs->exists($third));
    }

    /** @dataProvider waits */
    public function testWaitsForItsTurn(string $held, string $wait, string $act): void
    {
        $this->store->$held($this->key);
        $child = Child::start(function () use ($wait): void {
            $store = $this->store();
            $key = new Key('resource');
            $store->$wait($key);
            self::assertTrue($store->exists($key));
        });
        $this->untilWaiting(1);
        $this->store->$act($this->key);
        self::assertSame('done', $child->hear());
    }

    /** @return array<string, array{string, string, string}> */
    public function waits(): array
    {
        return [
            'a writer for a writer' => ['save', 'waitAndSave', 'delete'],
            'a writer for a reader' => ['saveRead', 'waitAndSave', 'delete'],
            'a reader for a writer' => ['save', 'waitAndSaveRead', 'delete'],
            'a reader for a writer to read' => ['save', 'waitAndSaveRead', 'saveRead'],
        ];
    }

    public function testAReaderWaitsToBecomeAWriter(): void
    {
        $this->store->saveRead($this->key);
        $child = Child::start(function (): void {
            $store = $this->store();
            $key = new Key('resource');
            $store->saveRead($key);
            $store->waitAndSave($key);
            self::assertTrue($store->exists($key));
            self::assertSame('exclusive', $this->client()->inspect('resource')->mode);
        });
        $this->untilWaiting(1);
        $this->store->delete($this->key);
        self::assertSame('done', $child->hear());
    }

    public function testTwoReadersThatBothWaitToWriteAreADeadlock(): void
    {
        $this->store->saveRead($this->key);
        $child = Child::start(function (): void {
            $store = $this->store();
            $key = new Key('resource');
            $store->saveRead($key);
            $store->waitAndSave($key);
            self::assertTrue($store->exists($key));
        });
        $this->untilWaiting(1);
        try {
            $this->store->waitAndSave($this->key);
            self::fail('the deadlock was not reported');
        } catch (LockAcquiringException) {
            $this->assertHolds(true, false);
        }
        $this->store->delete($this->key);
        self::assertSame('done', $child->hear());
    }

    public function testAProcessDoesNotWaitForItself(): void
    {
        $this->store->save($this->key);
        self::assertConflict(fn () => $this->store->waitAndSave($this->other));
        $this->assertHolds(true, false);
    }

    public function testATimeToLiveIsIgnored(): void
    {
        $lock = (new LockFactory($this->store))->createLock('resource', 0.001);
        self::assertTrue($lock->acquire());
        $lock->refresh(0.001);
        self::assertFalse($lock->isExpired());
        self::assertTrue($lock->isAcquired());
        $lock->release();
        $this->expectException(LockConflictedException::class);
        $lock->refresh();
    }

    public function testWorksWithSymfonysFactory(): void
    {
        $ours = new LockFactory($this->store);
        $theirs = new LockFactory($this->store());
        $lock = $ours->createLock('resource');
        self::assertTrue($lock->acquire());
        self::assertTrue($lock->acquire(true));
        self::assertFalse($ours->createLock('resource')->acquire());
        self::assertFalse($theirs->createLock('resource')->acquire());
        self::assertFalse($theirs->createLock('resource')->acquireRead());
        $lock->release();
        self::assertFalse($lock->isAcquired());

        $reader = $theirs->createLockFromKey($this->key);
        self::assertTrue($reader->acquireRead(true));
        self::assertTrue($lock->acquireRead());
        self::assertFalse($lock->acquire());
        self::assertTrue($lock->isAcquired());
        unset($reader, $this->key);
        self::assertTrue($lock->acquire(true));
        unset($lock);
        self::assertTrue($theirs->createLock('resource')->acquire());
    }

    public function testALockOfAServerThatIsGoneIsNotHeld(): void
    {
        $lock = (new LockFactory($this->store))->createLock('resource', 60.0);
        $lock->acquire();
        $this->store->save($this->other = new Key('another'));
        $this->server->kill();
        self::assertFalse($lock->isAcquired());
        self::assertFalse($this->store->exists($this->other));
        self::assertConflict(fn () => $lock->refresh());
        try {
            $this->store->delete($this->other);
            self::fail('releasing a lost lock succeeded');
        } catch (LockReleasingException) {
            $this->store->delete($this->other);
        }
        try {
            $this->store->save($this->other);
            self::fail('a lock was granted without a server');
        } catch (LockStorageException) {
            self::assertFalse($this->store->exists($this->other));
        }
        $this->expectException(LockAcquiringException::class);
        $lock->acquire();
    }

    public function testReconnectsOnlyForNewLocks(): void
    {
        $this->store->save($this->key);
        $this->store->save($another = new Key('another'));
        $this->server->restart();
        $this->assertHolds(false, false);
        $this->store->save($this->other);
        $this->assertHolds(false, true);
        self::assertFalse($this->store->exists($another));
        self::assertConflict(fn () => $this->store->save($this->key));
        $this->store->save($another);
        self::assertTrue($this->store->exists($another));
        self::assertConflict(fn () => $this->store()->save(new Key('another')));
    }

    public function testAForkedChildDoesNotHoldItsParentsLocks(): void
    {
        $this->store->save($this->key);
        $child = Child::start(function (): void {
            self::assertFalse($this->store->exists($this->key));
            self::assertConflict(fn () => $this->store->save($this->other));
            $this->store->save($new = new Key('another'));
            self::assertTrue($this->store->exists($new));
        });
        self::assertSame('done', $child->hear());
        $this->assertHolds(true, false);
    }

    public function testARefusalIsNotAConflict(): void
    {
        $this->server = new Server(['--locks-per-connection-max', '1']);
        $this->store = $this->store();
        $this->store->save($this->key);
        $this->expectException(LockAcquiringException::class);
        $this->store->save(new Key('another'));
    }

    public function testANameThatIsTooLongIsAnInvalidArgument(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->store->save(new Key(str_repeat('a', 1025)));
    }

    public function testStoresCanBeCombined(): void
    {
        $server = new Server();
        $second = new LockdStore('lockd+unix://' . $server->socket());
        $lock = (new LockFactory(new CombinedStore([$this->store, $second], new UnanimousStrategy())))
            ->createLock('resource');
        self::assertTrue($lock->acquire());
        self::assertSame(1, $this->client()->inspect('resource')->holders);
        self::assertSame(1, Client::connect($server->tcp())->inspect('resource')->holders);
        $server->kill();
        self::assertFalse($lock->isAcquired());
    }

    public function testAcceptsAClientInsteadOfAnAddress(): void
    {
        $client = $this->client();
        $store = new LockdStore($client);
        $store->save($this->key);
        self::assertSame(1, $client->inspect('resource')->holders);
        $client->close();
        self::assertFalse($store->exists($this->key));
        $this->expectException(LockStorageException::class);
        $store->save($this->other);
    }

    private function client(): Client
    {
        return Client::connect($this->server->tcp());
    }

    private function untilWaiting(int $waiters): void
    {
        $client = $this->client();
        Deadline::until('the clients wait', fn (): bool => $client->inspect('resource')->waiters === $waiters);
    }
}
