<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\LockdException;
use Lockd\Exception\NotHeldException;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;

/** The behaviour of a client whose session does not resume, when its server ends. */
abstract class EndingContract extends ServedContract
{
    public function testNoCallReportsSuccessAfterTheServerIsGone(): void
    {
        $server = self::server();
        [$a, $b] = [static::client(), static::client()];
        $locks = [$a->acquire('lost'), $a->acquire('lost/shared', null, true)];
        $server->restart();
        $calls = [
            fn () => $a->synchronized('lost/2', fn () => self::fail('the body ran')),
            fn () => $a->acquire('lost/2', 0.0),
            fn () => $a->acquire('lost', 0.0),
            fn () => $a->inspect('lost'),
            fn () => [...$a->list()],
            fn () => $locks[0]?->release(),
            fn () => $locks[1]?->convert(false),
        ];
        foreach ($calls as $call) {
            try {
                $call();
                self::fail('a call on a lost connection succeeded');
            } catch (ConnectionLostException $e) {
                self::assertNotSame('', $e->getMessage());
            }
        }
        foreach ($locks as $lock) {
            self::assertFalse($lock?->isHeld());
        }
        // The release has told of the loss; what comes after it must not speak of a release.
        self::assertFalse($locks[0]?->release());
        try {
            $locks[0]->convert(true);
            self::fail('a lost lock was converted');
        } catch (NotHeldException $e) {
            self::assertSame('"lost" was lost', $e->getMessage());
        }
        self::assertFalse($a->stands());
        self::assertFalse($b->stands());
        // A new client is a new owner of locks.
        self::assertTrue(static::client()->acquire('lost', 0.0)?->isHeld());
    }

    public function testSynchronizedThrowsIfTheLockIsLostWhileTheBodyRuns(): void
    {
        $client = static::client();
        $this->expectException(ConnectionLostException::class);
        $client->synchronized('under', function (): string {
            self::server()->restart();
            return 'done';
        });
    }

    public function testAWaitEndsWhenTheServerEnds(): void
    {
        $held = static::client()->acquire('ending');
        $child = Child::start(function (callable $say): void {
            try {
                $say(static::client()->acquire('ending', null) === null ? 'busy' : 'granted');
            } catch (LockdException $e) {
                $say($e instanceof ConnectionLostException ? 'lost' : get_class($e));
            }
        });
        $watcher = static::client();
        Deadline::until('the child waits', fn (): bool => $watcher->inspect('ending')->waiters === 1);
        self::server()->restart();
        self::assertSame('lost', $child->hear());
        self::assertFalse($held?->isHeld());
    }
}
