<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Closure;
use Lockd\Client;
use Lockd\Exception\ConnectionLostException;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Lock;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Storm;
use PHPUnit\Framework\TestCase;
use RuntimeException;

/** What is called under a lock, and signal handlers that throw. */
final class LockedCallTest extends TestCase
{
    /** @return iterable<string, array{callable(Client, string): Closure}> calls it under this lock */
    public static function ways(): iterable
    {
        // PHP 8.2 may crash if a signal handler throws while an object is being created, so what a
        // caller creates is created before.
        yield 'synchronized' => [static fn (Client $client, string $name): Closure =>
            static fn (callable $body): mixed => $client->synchronized($name, $body, 1.0)];
        yield 'Laravel, get' => [static fn (Client $client, string $name): Closure =>
            (new LockdLockProvider($client))->lock($name)->get(...)];
        yield 'Laravel, block' => [static function (Client $client, string $name): Closure {
            $lock = (new LockdLockProvider($client))->lock($name);
            return static fn (callable $body): mixed => $lock->block(1, $body);
        }];
        yield 'Laravel, funnel' => [static fn (Client $client, string $name): Closure =>
            (new LockdLockProvider($client))->funnel($name)->limit(2)->block(1)->then(...)];
    }

    /**
     * @dataProvider ways
     * @param callable(Client, string): Closure $way
     */
    public function testAClientThatIsClosedMeanwhileHasLostTheLock(callable $way): void
    {
        $server = new Server();
        $client = Client::connect($server->unix());
        $call = $way($client, 'closed');
        $this->expectException(ConnectionLostException::class);
        $this->expectExceptionMessage('"closed" was lost');
        $call(static fn () => $client->close());
    }

    public function testTheFunctionMayReleaseTheLockAndThenCloseTheClient(): void
    {
        $server = new Server();
        $client = Client::connect($server->unix());
        self::assertSame('done', $client->synchronized('early', static function (Lock $lock) use ($client): string {
            $lock->release();
            $client->close();
            return 'done';
        }));
    }

    public function testALossThatTheFunctionConcealsIsNoticed(): void
    {
        $server = new Server();
        $client = Client::connect($server->unix());
        $this->expectException(ConnectionLostException::class);
        $client->synchronized('concealed', static function (Lock $lock) use ($server): void {
            $server->kill();
            try {
                $lock->release();
            } catch (ConnectionLostException) {
                return;
            }
        });
    }

    /**
     * The trace of an exception may refer to the lock. So a lock that is left to its destructor is
     * held for as long as the caller keeps the exception.
     *
     * @dataProvider ways
     * @param callable(Client, string): Closure $way
     */
    public function testALockIsReleasedAlsoIfTheExceptionOfAHandlerIsKept(callable $way): void
    {
        $server = new Server();
        [$client, $watcher] = [Client::connect($server->unix()), Client::connect($server->unix())];
        $body = static fn () => null;
        $kept = [];
        $ignored = (string) ini_set('zend.exception_ignore_args', '0');
        $storm = new Storm();
        try {
            for ($time = 0; $time < 300; $time++) {
                $call = $way($client, "kept/$time");
                $storm->strikes(static function () use ($call, $body, &$kept): void {
                    try {
                        $call($body);
                    } catch (RuntimeException $e) {
                        $kept[] = $e;
                    }
                });
            }
        } finally {
            $storm->end();
            ini_set('zend.exception_ignore_args', $ignored);
        }
        self::assertNotSame([], $kept);
        self::assertSame([], [...$watcher->list('kept/')]);
    }
}
