<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ForkedException;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;

/** The behaviour of a client of a server: with other processes, and when they end. */
abstract class ServedContract extends LocksContract
{
    private static ?Server $server = null;

    abstract protected static function connect(string $url, ?string $owner, float $timeout): Client;

    /** The address of this server for the clients of this class. */
    abstract protected static function url(Server $server): string;

    protected static function client(?string $owner = null): Client
    {
        return static::connect(static::url(self::server()), $owner, 5.0);
    }

    protected static function server(): Server
    {
        return self::$server ??= static::newServer();
    }

    protected static function newServer(): Server
    {
        return new Server();
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

    protected function tearDown(): void
    {
        // If an assertion failed, its locks must not remain held in the next test.
        gc_collect_cycles();
    }

    public function testAWaiterKeepsItsPlaceInTheQueue(): void
    {
        [$a, $b] = [static::client(), static::client()];
        $held = $a->acquire('queue');
        $first = Child::start(function (callable $say): void {
            $lock = static::client('first')->acquire('queue', 30.0);
            $say('first has it: ' . ($lock?->isHeld() ? 'yes' : 'no'));
        });
        Deadline::until('the first waits', fn (): bool => $b->inspect('queue')->waiters === 1);
        $second = Child::start(function (callable $say): void {
            $lock = static::client('second')->acquire('queue', 30.0);
            $say('second has it: ' . ($lock?->isHeld() ? 'yes' : 'no'));
        });
        Deadline::until('the second waits', fn (): bool => $b->inspect('queue')->waiters === 2);
        // Many slices of the waits pass, and the order remains.
        for ($look = 0; $look < 10; $look++) {
            usleep(50_000);
            [$listed] = [...$b->list('queue')];
            self::assertSame(['first', 'second'], array_map(fn ($party) => $party->owner, $listed->waiters));
        }
        $held?->release();
        self::assertSame('first has it: yes', $first->hear());
        self::assertSame('second has it: yes', $second->hear());
    }

    public function testALockOfAKilledHolderIsOrphaned(): void
    {
        $child = Child::start(function (callable $say, callable $pause): void {
            $lock = static::client()->acquire('orphan');
            $say($lock?->isHeld() ? 'held' : 'not held');
            $pause();
        });
        self::assertSame('held', $child->hear());
        $a = static::client();
        self::assertNull($a->acquire('orphan', 0.0));
        $child->kill();
        $lock = $a->acquire('orphan', 30.0);
        self::assertTrue($lock?->orphaned());
        $lock->release();
        self::assertFalse($a->acquire('orphan', 0.0)?->orphaned());
    }

    public function testIncrementsUnderTheLockAreNotLost(): void
    {
        $file = self::server()->directory() . '/counter';
        file_put_contents($file, '0');
        $children = [];
        for ($number = 0; $number < 3; $number++) {
            $children[] = Child::start(function () use ($file): void {
                $client = static::client();
                for ($time = 0; $time < 100; $time++) {
                    $client->synchronized('counter', fn () => file_put_contents(
                        $file,
                        (string) ((int) file_get_contents($file) + 1),
                    ));
                }
            });
        }
        foreach ($children as $child) {
            self::assertSame('done', $child->hear());
        }
        self::assertSame('300', file_get_contents($file));
    }

    public function testAChildCannotUseOrFreeItsParentsLocks(): void
    {
        $client = static::client();
        $lock = $client->acquire('inherited');
        $child = Child::start(function (callable $say, callable $pause) use (&$client, &$lock): void {
            $calls = [
                fn () => $client->acquire('inherited', 0.0),
                fn () => $lock?->release(),
                fn () => $lock?->convert(true),
                fn () => $client->inspect('inherited'),
            ];
            foreach ($calls as $call) {
                try {
                    $call();
                    $say('it was let');
                } catch (ForkedException) {
                    $say('it was refused');
                }
            }
            $say($lock?->isHeld() || $client->stands() ? 'yes' : 'no');
            unset($calls, $call);
            $lock = null;
            $client->close();
            $client = null;
            gc_collect_cycles();
            $say(static::client()->acquire('inherited', 0.0) === null ? 'busy' : 'free');
            $pause();
        });
        for ($call = 0; $call < 4; $call++) {
            self::assertSame('it was refused', $child->hear());
        }
        self::assertSame(['no', 'busy'], [$child->hear(), $child->hear()]);
        self::assertTrue($lock?->isHeld());
        $child->kill();
        self::assertTrue($lock->isHeld());
        self::assertTrue($lock->release());
    }

    public function testAChildThatOutlivesItsParentDoesNotKeepTheParentsLocks(): void
    {
        $parent = Child::start(function (callable $say, callable $pause): void {
            $client = static::client();
            $lock = $client->acquire('outlived');
            $child = Child::start(function (callable $say, callable $pause) use ($client): void {
                Client::closeInherited();
                $say($client->stands() ? 'it stands' : 'closed');
                $pause();
            });
            $say($child->hear());
            $say((string) $child->pid);
            $pause();
        });
        self::assertSame('closed', $parent->hear());
        $grandchild = (int) $parent->hear();
        $parent->kill();
        // The grandchild ends by itself, because its channel has ended.
        self::assertTrue(static::client()->acquire('outlived', 30.0)?->isHeld());
        self::assertGreaterThan(0, $grandchild);
    }

    public function testConnectingWithoutALockdServerThrows(): void
    {
        $server = new Server(['--connections-max', '1']);
        $only = static::connect(static::url($server), null, 5.0);
        $urls = [$server->tcp(), 'tcp://127.0.0.1:1', 'unix:/nowhere/at/all', 'tcp://no.such.host.invalid'];
        foreach ($urls as $url) {
            try {
                static::connect($url, null, 2.0);
                self::fail("connected to $url");
            } catch (ConnectException $e) {
                self::assertNotSame('', $e->getMessage());
            }
        }
        // A server of another protocol is recognised, too.
        $only->close();
        $this->expectException(ConnectException::class);
        static::connect('tcp://' . $server->host() . ':' . $server->port('glockd'), null, 2.0);
    }
}
