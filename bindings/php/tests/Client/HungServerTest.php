<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\LockdException;
use Lockd\Exception\TimeoutException;
use Lockd\Internal\Deadline;
use Lockd\Lock;
use Lockd\Message\Rendezvous;
use Lockd\Symfony\LockdStore;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\Key;

/**
 * Calls through liblockd to a server that hangs while its kernel still answers: each must end by
 * itself.
 */
final class HungServerTest extends TestCase
{
    /** The shortest allowed, because this is how long a call waits. */
    private const DEAD_PEER_TIMEOUT = '12';

    private const LOST = ConnectionLostException::class . ' the server has not answered in time';

    /** A server that grants one lock and then answers nothing more. */
    private static function hangingAfterAGrant(): FakeServer
    {
        return FakeServer::start(static function (callable $receive, callable $send): void {
            $features = ['bye', 'cancel', 'convert', 'mode', 'timeLimit', 'token'];
            FakeServer::hello($receive, $send, $features, (int) self::DEAD_PEER_TIMEOUT);
            $request = $receive();
            $send(FakeServer::frame(['id' => $request['id'], 'result' => ['status' => 'ok', 'token' => 7]]));
        });
    }

    public function testEveryCallToAHungServerEnds(): void
    {
        $server = new Server(['--dead-peer-timeout', self::DEAD_PEER_TIMEOUT]);
        $client = Client::connectByFfi($server->tcp());
        $lock = $client->acquire('held', 0.0);
        self::assertNotNull($lock);
        $server->pause();
        try {
            $lock->release();
            self::fail('a hung server cannot have confirmed the release');
        } catch (ConnectionLostException) {
            self::assertFalse($lock->isHeld());
        }
        unset($lock);
        $client->close();
        $server->resume();
        self::assertNotNull(Client::connect($server->tcp())->acquire('held', 30.0), 'the lock was not freed');
    }

    /** They run at the same time, because each of them waits for the dead-peer timeout. */
    public function testAfterTheFirstUnansweredRequestTheSessionHasEnded(): void
    {
        $expected = [
            'isHeld' => [static fn (Client $client, Lock $lock): bool => $lock->isHeld(), 'false'],
            'inspect' => [static fn (Client $client): mixed => $client->inspect('other'), self::LOST],
            'list' => [static fn (Client $client): mixed => iterator_to_array($client->list()), self::LOST],
            'convert' => [static fn (Client $client, Lock $lock): mixed => $lock->makeExclusive(), self::LOST],
            'acquire' => [static fn (Client $client): mixed => $client->acquire('other', 3600.0), self::LOST],
        ];
        $calls = [];
        foreach ($expected as $call => [$ask]) {
            $server = self::hangingAfterAGrant();
            $calls[$call] = [$server, Child::start(static function (callable $say) use ($server, $ask): void {
                $client = Client::connectByFfi($server->url);
                $lock = $client->acquire('held', shared: true);
                assert($lock !== null);
                $say(self::outcome(static fn (): mixed => $ask($client, $lock)));
                $say($client->stands() ? 'stands' : 'has ended');
                // With the same reason, and without waiting again.
                $asked = Deadline::now();
                $say(self::outcome(static fn (): bool => $lock->release()));
                $say(Deadline::now() - $asked < 5.0 ? 'at once' : 'after a second wait');
            })];
        }
        foreach ($calls as $call => [$server, $child]) {
            $heard = [$child->hear(), $child->hear(), $child->hear(), $child->hear()];
            self::assertSame([$expected[$call][1], 'has ended', self::LOST, 'at once'], $heard, $call);
        }
    }

    /** What a call returns or throws, without the address. */
    private static function outcome(callable $call): string
    {
        try {
            return json_encode($call(), JSON_THROW_ON_ERROR);
        } catch (LockdException $e) {
            return get_class($e) . preg_replace('#tcp://\S+#', '', $e->getMessage());
        }
    }

    /** Only one of the servers hangs, and the locks on the others must stay held. */
    public function testLocksOnOtherServersAreNotGivenUp(): void
    {
        $good = new Server();
        $hung = self::hangingAfterAGrant();
        $client = Client::connectByFfi("{$good->tcp()},$hung->url");
        [$here, $there] = [null, null];
        for ($number = 1; $here === null || $there === null; $number++) {
            $name = "name/$number";
            // The hung server grants one name only.
            if (Rendezvous::choose([$good->tcp(), $hung->url], $name) === $good->tcp()) {
                $here ??= $client->acquire($name);
            } else {
                $there ??= $client->acquire($name);
            }
        }
        self::assertSame('false', self::outcome(static fn (): bool => $there->isHeld()));
        self::assertTrue($here->isHeld());
        $asked = self::outcome(static fn (): mixed => $client->inspect($there->name()));
        self::assertSame(TimeoutException::class . 'the server has not answered in time', $asked);
        self::assertTrue($here->isHeld());
    }

    public function testSymfonySaysThatTheLockIsNotHeld(): void
    {
        $server = self::hangingAfterAGrant();
        $store = new LockdStore(Client::connectByFfi($server->url));
        $key = new Key('held');
        $store->save($key);
        try {
            $store->putOffExpiration($key, 30.0);
            self::fail('a hung server cannot have confirmed that the lock is held');
        } catch (LockConflictedException) {
            self::assertFalse($store->exists($key));
        }
    }
}
