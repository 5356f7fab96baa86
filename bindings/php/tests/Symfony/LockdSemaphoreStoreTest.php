<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Client;
use Lockd\Message\MessageClient;
use Lockd\Symfony\LockdSemaphoreStore;
use Lockd\Symfony\LockdStore;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use Symfony\Component\Lock\Key as LockKey;
use Symfony\Component\Semaphore\Exception\InvalidArgumentException;
use Symfony\Component\Semaphore\Exception\RuntimeException;
use Symfony\Component\Semaphore\Exception\SemaphoreAcquiringException;
use Symfony\Component\Semaphore\Exception\SemaphoreExpiredException;
use Symfony\Component\Semaphore\Exception\SemaphoreReleasingException;
use Symfony\Component\Semaphore\Key;
use Symfony\Component\Semaphore\PersistingStoreInterface;
use Symfony\Component\Semaphore\SemaphoreFactory;

/** The store with Symfony's real component and a real server. */
final class LockdSemaphoreStoreTest extends TestCase
{
    private Server $server;
    private LockdSemaphoreStore $store;

    protected function setUp(): void
    {
        self::assertTrue(
            interface_exists(PersistingStoreInterface::class),
            'symfony/semaphore is missing: install it with Composer, or php-symfony-semaphore'
        );
        $this->server = new Server();
        $this->store = $this->store();
    }

    private function store(): LockdSemaphoreStore
    {
        return new LockdSemaphoreStore("lockd://{$this->server->host()}:{$this->server->port()}");
    }

    private function client(): Client
    {
        return Client::connect($this->server->tcp());
    }

    /** @param callable(): mixed $act */
    private static function assertFull(callable $act): void
    {
        try {
            $act();
        } catch (SemaphoreAcquiringException $e) {
            self::assertNotSame('', $e->getMessage());
            return;
        }
        self::fail('there was a slot');
    }

    /**
     * @param list<bool> $expected
     * @param list<Key> $keys
     */
    private function assertHold(array $expected, array $keys): void
    {
        self::assertSame($expected, array_map($this->store->exists(...), $keys));
    }

    public function testAKeyHasASlotFromSaveToDelete(): void
    {
        $key = new Key('resource', 1);
        $this->assertHold([false], [$key]);
        $this->store->save($key, 10.0);
        $this->store->save($key, 10.0);
        $this->assertHold([true], [$key]);
        $this->store->delete($key);
        $this->store->delete($key);
        $this->assertHold([false], [$key]);
        self::assertSame([], [...$this->client()->list()]);
    }

    public function testAsManyKeysAsTheLimitHaveASlot(): void
    {
        $keys = [new Key('resource', 2), new Key('resource', 2), new Key('resource', 2)];
        $this->store->save($keys[0], 10.0);
        $this->store->save($keys[1], 10.0);
        self::assertFull(fn () => $this->store->save($keys[2], 10.0));
        self::assertFull(fn () => $this->store()->save($keys[2], 10.0));
        $this->assertHold([true, true, false], $keys);
        self::assertSame([2, 2], [$this->client()->inspect('resource')->holders,
            $this->client()->inspect('resource')->limit]);

        $this->store->delete($keys[0]);
        $this->assertHold([false, true, false], $keys);
        $theirs = $this->store();
        $theirs->save($keys[2], 10.0);
        $this->assertHold([false, true, false], $keys);
        self::assertTrue($theirs->exists($keys[2]));
        self::assertFull(fn () => $this->store->save($keys[0], 10.0));
    }

    public function testKeysOfDifferentResourcesDoNotConflict(): void
    {
        $keys = [new Key('one', 1), new Key('other', 1)];
        $this->store->save($keys[0], 10.0);
        $this->store->save($keys[1], 10.0);
        $this->assertHold([true, true], $keys);
        $this->untilConnections(1);
    }

    public function testFurtherConnectionsAreUsedAgain(): void
    {
        foreach (range(1, 3) as $time) {
            $keys = [new Key("resource/$time", 3), new Key("resource/$time", 3), new Key("resource/$time", 3)];
            foreach ($keys as $key) {
                $this->store->save($key, 10.0);
            }
            $this->assertHold([true, true, true], $keys);
            $this->untilConnections(3);
            array_map($this->store->delete(...), $keys);
            $this->untilConnections(3);
        }
    }

    public function testTheSmallestLimitOfTheKeysIsInForce(): void
    {
        $keys = [new Key('resource', 5), new Key('resource', 2), new Key('resource', 5)];
        $this->store->save($keys[0], 10.0);
        $this->store->save($keys[1], 10.0);
        self::assertFull(fn () => $this->store->save($keys[2], 10.0));
        $this->store->delete($keys[1]);
        $this->store->save($keys[2], 10.0);
        $this->assertHold([true, false, true], $keys);
    }

    public function testAWeightAboveOneIsRefused(): void
    {
        $key = new Key('resource', 4, 2);
        try {
            $this->store->save($key, 10.0);
            self::fail('a weight was accepted');
        } catch (InvalidArgumentException $e) {
            self::assertStringContainsString('weight 2', $e->getMessage());
        }
        self::assertFalse($this->store->exists($key));
        $this->expectException(SemaphoreExpiredException::class);
        $this->store->putOffExpiration($key, 10.0);
    }

    public function testInvalidKeysAreInvalidArguments(): void
    {
        $keys = [new Key('resource', 16_777_216), new Key(str_repeat('a', 1025), 2), new Key("zero\0byte", 2)];
        foreach ($keys as $key) {
            try {
                $this->store->save($key, 10.0);
                self::fail('an invalid key was accepted');
            } catch (InvalidArgumentException $e) {
                self::assertNotSame('', $e->getMessage());
            }
        }
    }

    public function testATimeToLiveIsIgnored(): void
    {
        $key = new Key('resource', 2);
        $this->store->save($key, 0.001);
        $this->store->putOffExpiration($key, 0.001);
        usleep(2000);
        $this->assertHold([true], [$key]);
        $this->store->delete($key);
        $this->expectException(SemaphoreExpiredException::class);
        $this->store->putOffExpiration($key, 60.0);
    }

    public function testAKeyThatHasASlotCannotBeSerialized(): void
    {
        $key = new Key('resource', 2);
        self::assertEquals($key, unserialize(serialize($key)));
        $this->store->save($key, 10.0);
        try {
            serialize($key);
            self::fail('the key was serialized');
        } catch (\RuntimeException) {
            $this->assertHold([true, false], [$key, clone $key]);
        }
        $this->store->delete($key);
        self::assertFalse($this->store->exists(unserialize(serialize($key))));
    }

    public function testASlotIsFreeWhenItsKeyIsDestroyed(): void
    {
        $key = new Key('resource', 1);
        $theirs = $this->store();
        $theirs->save($key, 10.0);
        // The store lives as long as its keys.
        unset($theirs);
        self::assertFull(fn () => $this->store->save(new Key('resource', 1), 10.0));
        unset($key);
        $this->store->save($key = new Key('resource', 1), 10.0);
        $this->assertHold([true], [$key]);
    }

    public function testTheSlotOfAKilledProcessIsFreeAtOnce(): void
    {
        $child = Child::start(function (callable $say, callable $pause): void {
            $keys = [new Key('resource', 3), new Key('resource', 3)];
            foreach ($keys as $key) {
                $this->store->save($key, 300.0);
            }
            $say('held');
            $pause();
        });
        self::assertSame('held', $child->hear());
        $keys = [new Key('resource', 3), new Key('resource', 3), new Key('resource', 3)];
        $this->store->save($keys[0], 10.0);
        self::assertFull(fn () => $this->store->save($keys[1], 10.0));
        $child->kill();
        $client = $this->client();
        Deadline::until('the slots are free', fn (): bool => $client->inspect('resource')->freeSlots() === 2);
        $this->store->save($keys[1], 10.0);
        $this->store->save($keys[2], 10.0);
        $this->assertHold([true, true, true], $keys);
    }

    public function testWorksWithSymfonysFactory(): void
    {
        $ours = new SemaphoreFactory($this->store);
        $theirs = new SemaphoreFactory($this->store());
        $semaphore = $ours->createSemaphore('resource', 2);
        self::assertTrue($semaphore->acquire());
        self::assertTrue($semaphore->acquire());
        $second = $ours->createSemaphore('resource', 2);
        self::assertTrue($second->acquire());
        self::assertFalse($theirs->createSemaphore('resource', 2)->acquire());
        $semaphore->refresh();
        self::assertTrue($semaphore->isAcquired());
        $semaphore->release();
        self::assertFalse($semaphore->isAcquired());
        self::assertTrue($theirs->createSemaphore('resource', 2)->acquire());
        // Symfony's object releases its slot when it is destroyed.
        unset($second);
        $last = $theirs->createSemaphore('resource', 1);
        self::assertTrue($last->acquire());
        $this->expectException(RuntimeException::class);
        $ours->createSemaphore('resource', 4, 2)->acquire();
    }

    public function testALockOfTheSameNameKeepsTheSemaphoreOut(): void
    {
        $locks = new LockdStore($this->client());
        $locks->save($key = new LockKey('resource'));
        self::assertFull(fn () => $this->store->save(new Key('resource', 2), 10.0));
        $locks->delete($key);
        $this->store->save($slot = new Key('resource', 2), 10.0);
        $this->assertHold([true], [$slot]);
    }

    public function testASlotOfAServerThatIsGoneIsNotHeld(): void
    {
        $key = new Key('resource', 2);
        $semaphore = (new SemaphoreFactory($this->store))->createSemaphoreFromKey($key);
        self::assertTrue($semaphore->acquire());
        $this->server->kill();
        self::assertFalse($semaphore->isAcquired());
        try {
            $semaphore->refresh();
            self::fail('a lost slot was refreshed');
        } catch (SemaphoreExpiredException) {
            self::assertFalse($this->store->exists($key));
        }
        try {
            $semaphore->release();
            self::fail('releasing a lost slot succeeded');
        } catch (SemaphoreReleasingException) {
            $semaphore->release();
        }
        $this->expectException(RuntimeException::class);
        $semaphore->acquire();
    }

    public function testReconnectsOnlyForNewSlots(): void
    {
        $keys = [new Key('resource', 2), new Key('resource', 2), new Key('resource', 2)];
        $this->store->save($keys[0], 10.0);
        $this->store->save($keys[1], 10.0);
        $this->server->restart();
        $this->assertHold([false, false, false], $keys);
        $this->store->save($keys[2], 10.0);
        $this->store->save($keys[0], 10.0);
        $this->assertHold([true, false, true], $keys);
        self::assertFull(fn () => $this->store->save($keys[1], 10.0));
    }

    public function testAForkedChildDoesNotHoldItsParentsSlots(): void
    {
        $key = new Key('resource', 2);
        $this->store->save($key, 10.0);
        $child = Child::start(function () use ($key): void {
            self::assertFalse($this->store->exists($key));
            $this->store->save($new = new Key('resource', 2), 10.0);
            self::assertTrue($this->store->exists($new));
            self::assertFull(fn () => $this->store->save(new Key('resource', 2), 10.0));
        });
        self::assertSame('done', $child->hear());
        $this->assertHold([true], [$key]);
    }

    public function testARefusalIsNotAFullSemaphore(): void
    {
        $older = FakeServer::start(static fn (callable $receive, callable $send) =>
            FakeServer::hello($receive, $send, ['mode']));
        $stores = [
            [new LockdSemaphoreStore('lockd' . strstr($older->url, ':')), 'older than limited locks'],
            [new LockdSemaphoreStore('lockd+unix:///nowhere/lockd.sock'), '/nowhere/lockd.sock'],
        ];
        foreach ($stores as [$store, $reason]) {
            try {
                $store->save(new Key('resource', 2), 10.0);
                self::fail('a slot was granted');
            } catch (RuntimeException $e) {
                self::assertStringContainsString($reason, $e->getMessage());
            }
        }
    }

    public function testAcceptsAClientInsteadOfAnAddress(): void
    {
        $client = $this->client();
        $store = new LockdSemaphoreStore($client);
        $store->save($key = new Key('resource', 3), 10.0);
        self::assertTrue($store->exists($key));
        // A client is one owner.
        self::assertFull(fn () => $store->save(new Key('resource', 3), 10.0));
        $client->close();
        self::assertFalse($store->exists($key));
        $this->expectException(RuntimeException::class);
        $store->save($key, 10.0);
    }

    public function testRefusesAnInvalidDsn(): void
    {
        $this->expectException(InvalidArgumentException::class);
        new LockdSemaphoreStore('redis://localhost');
    }

    private function untilConnections(int $connections): void
    {
        $observer = MessageClient::connect($this->server->tcp());
        // The server may not have noticed yet that the last observer has gone.
        Deadline::until("there are $connections connections, and the observer's", fn (): bool =>
            $observer->rpc('stats')['connections'] === $connections + 1);
    }
}
