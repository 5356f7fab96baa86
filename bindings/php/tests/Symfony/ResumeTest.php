<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Client;
use Lockd\Symfony\Dsn;
use Lockd\Symfony\LockdSemaphoreStore;
use Lockd\Symfony\LockdStore;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use Symfony\Component\Lock\Exception\ExceptionInterface;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\Exception\LockReleasingException;
use Symfony\Component\Lock\Exception\LockStorageException;
use Symfony\Component\Lock\Key;
use Symfony\Component\Lock\LockFactory;
use Symfony\Component\Semaphore\Exception\RuntimeException as SemaphoreRuntimeException;
use Symfony\Component\Semaphore\Key as SemaphoreKey;

/** Stores whose sessions resume: in doubt they say no, and afterwards what is so. */
final class ResumeTest extends TestCase
{
    private Server $server;

    protected function setUp(): void
    {
        $this->server = new Server(remembers: true);
    }

    private function dsn(): string
    {
        return "lockd://127.0.0.1:{$this->server->port()}?resume";
    }

    /** @param class-string<\Throwable> $class */
    private static function assertThrows(string $class, callable $call): void
    {
        try {
            $call();
            self::fail("$class was not thrown");
        } catch (ExceptionInterface | \Symfony\Component\Semaphore\Exception\ExceptionInterface $e) {
            self::assertInstanceOf($class, $e);
            self::assertStringContainsString('in doubt', $e->getMessage());
        }
    }

    public function testAStoreInDoubtSaysNo(): void
    {
        $store = new LockdStore($this->dsn());
        [$key, $another, $given] = [new Key('held'), new Key('held'), new Key('given up')];
        $store->save($key);
        $store->save($given);
        $lock = (new LockFactory($store))->createLock('by a factory', null, false);
        self::assertTrue($lock->acquire());
        $this->server->stop();
        self::assertFalse($store->exists($key));
        self::assertFalse($lock->isAcquired());
        self::assertThrows(LockStorageException::class, static fn () => $store->putOffExpiration($key, 30.0));
        self::assertThrows(LockStorageException::class, static fn () => $store->save($key));
        self::assertThrows(LockStorageException::class, static fn () => $store->saveRead($another));
        self::assertThrows(LockReleasingException::class, static fn () => $store->delete($given));
        $this->server->startAgain();
        Deadline::until('the session is resumed', static fn (): bool => $store->exists($key));
        $store->putOffExpiration($key, 30.0);
        $store->save($key);
        self::assertSame([true, false], [$lock->isAcquired(), $store->exists($given)]);
        $this->expectException(LockConflictedException::class);
        $store->save($another);
    }

    public function testASemaphoreInDoubtSaysNo(): void
    {
        $store = new LockdSemaphoreStore($this->dsn());
        [$key, $another] = [new SemaphoreKey('slots', 2), new SemaphoreKey('slots', 2)];
        $store->save($key, 300.0);
        $store->save($another, 300.0);
        $this->server->stop();
        self::assertFalse($store->exists($key));
        self::assertThrows(SemaphoreRuntimeException::class, static fn () => $store->putOffExpiration($key, 30.0));
        self::assertThrows(SemaphoreRuntimeException::class, static fn () => $store->save($key, 30.0));
        $this->server->startAgain();
        // Each slot has a session of its own.
        foreach ([$key, $another] as $one) {
            Deadline::until('the session is resumed', static fn (): bool => $store->exists($one));
            $store->putOffExpiration($one, 30.0);
        }
        self::assertSame(2, Client::connect($this->server->tcp())->inspect('slots')->holders);
    }

    /**
     * @testWith ["lockd://a,b:1?resume", "tcp://a?resume,tcp://b:1?resume"]
     *           ["lockd+tls://a?ca=/ca.pem&resume&wait=1", "tls://a?ca=/ca.pem&resume"]
     *           ["lockd+unix:///run/lockd.sock?resume", "unix:/run/lockd.sock?resume"]
     */
    public function testADsnMayAskForIt(string $dsn, string $url): void
    {
        self::assertSame($url, Dsn::parse($dsn)->url);
    }
}
