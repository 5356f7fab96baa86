<?php

declare(strict_types=1);

namespace Lockd\Tests\Message;

use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\RefusedException;
use Lockd\Exception\TimeoutException;
use Lockd\Message\MessageClient;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

final class MessageClientTest extends TestCase
{
    public function testCallsCommandsByName(): void
    {
        $server = new Server();
        foreach ([$server->tcp(), $server->unix()] as $url) {
            $client = MessageClient::connect($url);
            self::assertSame(
                ['status' => 'ok', 'parameters' => ['list' => [1, 2.5, null], 'text' => 'Straße/']],
                $client->rpc('ping', ['list' => [1, 2.5, null], 'text' => 'Straße/']),
            );
            self::assertSame(['status' => 'unknown', 'command' => 'dance'], $client->rpc('dance'));
            self::assertSame('lockd', $client->rpc('hello')['server']);
            self::assertTrue($client->stands());
            $client->close();
            self::assertFalse($client->stands());
        }
    }

    public function testCallsCommandsOfAProgramsOwnServer(): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send): void {
            $first = $receive();
            $second = $receive();
            // A server may answer late and out of order.
            $send(FakeServer::frame(['id' => $second['id'], 'result' => $second['parameters']]));
            $send(FakeServer::frame(['id' => $first['id'], 'result' => ['late']]));
            $third = $receive();
            $send(FakeServer::frame(['id' => $third['id'], 'result' => ['sum' => array_sum($third['parameters'])]]));
        });
        $client = MessageClient::connect($server->url);
        try {
            $client->rpc('slow', [], 0.05);
            self::fail('the late answer was awaited');
        } catch (TimeoutException) {
            self::assertTrue($client->stands());
        }
        self::assertSame(['a' => 1], $client->rpc('echo', ['a' => 1]));
        self::assertSame(['sum' => 6], $client->rpc('add', ['x' => 1, 'y' => 2, 'z' => 3]));
    }

    public function testAResultMayBeAnyJson(): void
    {
        $results = [42, 'text', true, null, [], ['a' => 1]];
        $server = FakeServer::start(static function (callable $receive, callable $send) use ($results): void {
            foreach ($results as $result) {
                $send(FakeServer::frame(['id' => $receive()['id'], 'result' => $result]));
            }
            $send(FakeServer::frame(['id' => $receive()['id'], 'error' => 'the result cannot be written as JSON']));
        });
        $client = MessageClient::connect($server->url);
        foreach ($results as $result) {
            self::assertSame($result, $client->rpc('anything'));
        }
        $this->expectException(RefusedException::class);
        $this->expectExceptionMessage('cannot be written');
        $client->rpc('anything');
    }

    public function testParametersThatAreNotJsonAreRefusedWithoutSending(): void
    {
        $server = new Server();
        $client = MessageClient::connect($server->tcp());
        try {
            $client->rpc('ping', ['bytes' => "\xff"]);
            self::fail('invalid JSON was sent');
        } catch (InvalidArgumentException $e) {
            self::assertStringContainsString('JSON', $e->getMessage());
        }
        self::assertSame('ok', $client->rpc('ping')['status']);
    }

    public function testALostConnectionThrows(): void
    {
        $server = new Server();
        $client = MessageClient::connect($server->tcp());
        $server->kill();
        $this->expectException(ConnectionLostException::class);
        $client->rpc('ping');
    }
}
