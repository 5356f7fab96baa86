<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\ListedLock;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Names spread over several servers: every client must send a name to the same server. */
final class SpreadTest extends TestCase
{
    public function testAllClientsSendANameToTheSameServer(): void
    {
        $servers = [new Server(), new Server(), new Server()];
        $urls = array_map(fn (Server $server): string => $server->tcp(), $servers);
        $clients = [
            Client::connect(implode(',', $urls)),
            Client::connect(implode(' , ', array_reverse($urls))),
            Client::connectByFfi(implode(',', $urls)),
        ];
        $locks = [];
        for ($number = 0; $number < 60; $number++) {
            $name = "spread/$number\xff";
            $lock = $clients[$number % 3]->acquire($name, 0.0);
            self::assertNotNull($lock);
            self::assertNull($clients[($number + 1) % 3]->acquire($name, 0.0));
            self::assertNull($clients[($number + 2) % 3]->acquire($name, 0.0));
            $locks[$name] = $lock;
        }
        $expected = array_map('strval', array_keys($locks));
        sort($expected, SORT_STRING);
        foreach ($clients as $client) {
            $names = array_map(fn (ListedLock $lock): string => $lock->name, [...$client->list('spread/')]);
            self::assertSame($expected, $names);
        }
        // No server has all locks.
        foreach ($urls as $url) {
            self::assertLessThan(60, count([...Client::connect($url)->list()]));
        }
    }

    /** @return iterable<string, array{callable(string): Client}> */
    public static function transports(): iterable
    {
        yield 'streams' => [Client::connect(...)];
        yield 'FFI' => [Client::connectByFfi(...)];
    }

    /**
     * @dataProvider transports
     * @param callable(string): Client $connect
     */
    public function testLocksOnAServerThatIsGoneAreLost(callable $connect): void
    {
        $servers = [new Server(), new Server()];
        $client = $connect($servers[0]->tcp() . ',' . $servers[1]->tcp());
        $locks = [];
        for ($number = 0; $number < 20; $number++) {
            $locks[] = $client->acquire("half/$number");
        }
        $servers[0]->kill();
        $held = array_filter($locks, fn ($lock): bool => $lock?->isHeld() === true);
        self::assertGreaterThan(0, count($held));
        self::assertLessThan(20, count($held));
        self::assertFalse($client->stands());
        $lost = 0;
        foreach ($locks as $lock) {
            try {
                $lock?->release();
            } catch (ConnectionLostException) {
                $lost++;
            }
        }
        self::assertSame(20 - count($held), $lost);
        self::assertTrue($client->stands(), 'every lost lock has been released');
    }

    /**
     * @dataProvider transports
     * @param callable(string): Client $connect
     */
    public function testASessionSurvivesTheLossOfAServerWhereItHoldsNothing(callable $connect): void
    {
        $servers = [new Server(), new Server()];
        $client = $connect($servers[0]->tcp() . ',' . $servers[1]->tcp());
        $servers[0]->kill();
        Deadline::until('a call notices', fn (): bool => $this->asked($client)['lost'] !== []);
        self::assertTrue($client->stands());
        ['lost' => $lost, 'had' => $had] = $this->asked($client);
        self::assertNotEmpty($had);
        $lock = $client->acquire($had[0], 0.0);
        self::assertTrue($client->stands() && $lock?->isHeld());
        $this->assertLost(fn () => $client->inspect($lost[0]));
        $this->assertLost(fn () => [...$client->list()]);
        $servers[1]->kill();
        Deadline::until('the loss is noticed', fn (): bool => !$client->stands());
    }

    /**
     * @dataProvider transports
     * @param callable(string): Client $connect
     */
    public function testOneServerThatAnswersIsEnough(callable $connect): void
    {
        $server = new Server();
        $nowhere = 'unix:/nonexistent/lockd.sock';
        $client = $connect("$nowhere," . $server->tcp());
        ['lost' => $lost, 'had' => $had] = $this->asked($client);
        self::assertNotEmpty($had);
        self::assertStringContainsString($nowhere, $this->assertLost(fn () => $client->acquire($lost[0], 0.0)));
        $this->assertLost(fn () => [...$client->list()]);
        self::assertTrue($client->stands());
        $direct = Client::connect($server->tcp());
        self::assertNotNull($direct->acquire($lost[0], 0.0), 'the client has not tried another server');
    }

    /**
     * @dataProvider transports
     * @param callable(string): Client $connect
     */
    public function testWithoutAnyServerTheExceptionNamesEachFailure(callable $connect): void
    {
        try {
            $connect('unix:/nonexistent/one.sock,unix:/nonexistent/two.sock');
            self::fail('connected without a server');
        } catch (ConnectException $e) {
            self::assertStringContainsString('one.sock', $e->getMessage());
            self::assertStringContainsString('two.sock', $e->getMessage());
        }
    }

    /** @return iterable<string, array{callable(string, ?string, float): Client}> */
    public static function timedTransports(): iterable
    {
        yield 'streams' => [Client::connect(...)];
        yield 'FFI' => [Client::connectByFfi(...)];
    }

    /**
     * @dataProvider timedTransports
     * @param callable(string, ?string, float): Client $connect
     */
    public function testASilentServerLeavesTimeToConnectToTheOthers(callable $connect): void
    {
        // The kernel accepts the connections, but nothing answers on them.
        $silent = stream_socket_server('tcp://127.0.0.1:0');
        assert($silent !== false);
        $server = new Server();
        $url = 'tcp://' . stream_socket_get_name($silent, false) . ',' . $server->tcp();
        self::assertNotEmpty($this->asked($connect($url, null, 6.0))['had']);
    }

    /**
     * Acquires and releases many names, and returns which were lost and which were granted.
     *
     * @return array{lost: list<string>, had: list<string>}
     */
    private function asked(Client $client): array
    {
        $names = ['lost' => [], 'had' => []];
        for ($number = 0; $number < 40; $number++) {
            try {
                $had = $client->acquire("half/$number", 0.0)?->release() === true;
            } catch (ConnectionLostException) {
                $names['lost'][] = "half/$number";
                continue;
            }
            self::assertTrue($had);
            $names['had'][] = "half/$number";
        }
        return $names;
    }

    /** @param callable(): mixed $call */
    private function assertLost(callable $call): string
    {
        try {
            $call();
        } catch (ConnectionLostException $e) {
            return $e->getMessage();
        }
        self::fail('the connection is not lost');
    }
}
