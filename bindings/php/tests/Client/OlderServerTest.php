<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\RefusedException;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/**
 * Limited locks and a server that does not know them: it would ignore the limit. So it is never
 * asked for one.
 */
final class OlderServerTest extends TestCase
{
    /** @return iterable<string, array{callable(string): Client, callable}> */
    public static function transports(): iterable
    {
        yield 'streams' => [Client::connect(...), Client::connectAndAcquire(...)];
        yield 'FFI' => [Client::connectByFfi(...), Client::connectAndAcquireByFfi(...)];
    }

    /** @param list<string> $features */
    private static function serve(array $features): FakeServer
    {
        return FakeServer::start(static function (callable $receive, callable $send) use ($features): void {
            FakeServer::hello($receive, $send, $features);
            for ($token = 7; ($request = $receive()) !== []; $token++) {
                $hasLimit = isset($request['parameters']['limit']);
                $result = $hasLimit ? ['status' => 'invalid', 'reason' => 'it was sent'] : ['status' => 'ok'];
                $send(FakeServer::frame(['id' => $request['id'], 'result' => $result + ['token' => $token]]));
            }
        });
    }

    private static function assertRefused(callable $call): void
    {
        try {
            $call();
            self::fail('an older server was asked for a limited lock');
        } catch (RefusedException $e) {
            self::assertStringContainsString('the server is older than limited locks', $e->getMessage());
            self::assertNull($e->cause);
        }
    }

    /**
     * @dataProvider transports
     * @param callable(string): Client $connect
     */
    public function testAnOlderServerIsNotAskedForALimitedLock(callable $connect): void
    {
        $server = self::serve(['bye', 'cancel', 'convert', 'mode', 'timeLimit', 'token']);
        $client = $connect($server->url);
        self::assertRefused(fn () => $client->acquire('gpu', 30.0, atMost: 4));
        self::assertRefused(fn () => $client->synchronized('gpu', fn () => self::fail('it ran'), 30.0, atMost: 4));
        // One holder at most is exclusive, which every server knows.
        $lock = $client->acquire('gpu', 30.0, atMost: 1);
        self::assertSame([7, false], [$lock?->token(), $lock?->isShared()]);
        self::assertRefused(fn () => $lock?->convert(atMost: 4));
        self::assertSame(1, $lock?->limit());
    }

    /**
     * @dataProvider transports
     */
    public function testOneThatWaitsForTheServerIsRefusedAtOnce(callable $connect, callable $connectAndAcquire): void
    {
        $server = self::serve(['mode']);
        self::assertRefused(fn () => $connectAndAcquire($server->url, 'gpu', 30.0, atMost: 4));
    }

    /**
     * @dataProvider transports
     * @param callable(string): Client $connect
     */
    public function testOfSeveralServersOnlyTheOlderOneIsNotAsked(callable $connect): void
    {
        $newer = new Server();
        $older = self::serve(['mode']);
        $client = $connect("{$newer->tcp()},$older->url");
        [$granted, $refused] = [[], 0];
        foreach (range(1, 40) as $number) {
            try {
                $granted[] = $client->acquire("gpu/$number", 30.0, atMost: 4);
            } catch (RefusedException) {
                $refused++;
            }
        }
        self::assertNotContains(null, $granted);
        self::assertNotContains(0, [$refused, count($granted)]);
        self::assertCount(count($granted), [...Client::connect($newer->tcp())->list()]);
    }
}
