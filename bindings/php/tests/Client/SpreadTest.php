<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ConnectionLostException;
use Lockd\ListedLock;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Names spread over several servers: every client must look for a name in the same place. */
final class SpreadTest extends TestCase
{
    public function testAllClientsAgreeWhereANameBelongs(): void
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
        // None of them has everything.
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
    public function testAServerThatIsGoneTakesItsNamesWithIt(callable $connect): void
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
    }
}
