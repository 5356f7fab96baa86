<?php

declare(strict_types=1);

namespace Lockd\Tests\Message;

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Message\Address;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

final class WrongPortTest extends TestCase
{
    /** @param list<string> $parts */
    private static function assertHas(array $parts, string $text): void
    {
        foreach ($parts as $part) {
            self::assertStringContainsString($part, $text);
        }
    }

    private static function refusal(string $url): string
    {
        try {
            Client::connect($url, timeout: 20.0);
        } catch (ConnectException $e) {
            return $e->getMessage();
        }
        self::fail("connected to $url");
    }

    public function testNamesATextProtocolOnAWrongPort(): void
    {
        $server = new Server();
        foreach (['lockd', 'glockd'] as $protocol) {
            $why = self::refusal("tcp://127.0.0.1:{$server->port($protocol)}");
            self::assertHas(['text protocol', "this port speaks $protocol", '`message`', '20934'], $why);
        }
    }

    public function testOtherProtocolsAreRecognisedByTheirFirstBytes(): void
    {
        foreach (
            [
                ["\x15\x03\x03\0\x02\x02\x46", ['TLS', 'tls://']],
                ["HTTP/1.1 400 Bad Request\r\n\r\n", ['HTTP', '400 Bad Request', '`message`', '20934']],
                ["SSH-2.0-\x1b\r\n", ['text protocol', 'SSH-2.0-\\033"']],
                ["\xff\xff\xff\xff", ['no message']],
            ] as [$bytes, $parts]
        ) {
            $server = FakeServer::start(static function (callable $receive, callable $send) use ($bytes): void {
                $receive();
                $send($bytes);
            });
            self::assertHas($parts, self::refusal($server->url));
        }
    }

    public function testSuggestsAWrongProtocolIfTheServerAnswersNothing(): void
    {
        $server = FakeServer::start(static fn () => null);
        try {
            Client::connect($server->url, timeout: 0.2);
            self::fail('connected to a silent server');
        } catch (ConnectException $e) {
            self::assertHas(['has not answered', 'another protocol', '`message`', '20934', '2626'], $e->getMessage());
            self::assertMatchesRegularExpression('/within 0\.[12]\d{0,2} s:/', $e->getMessage());
        }
    }

    public function testWhatMayBeWrongWithSeveralSilentServersIsSaidOnce(): void
    {
        $servers = [FakeServer::start(static fn () => null), FakeServer::start(static fn () => null)];
        try {
            Client::connect("{$servers[0]->url},{$servers[1]->url}", timeout: 0.2);
            self::fail('connected to a silent server');
        } catch (ConnectException $e) {
            self::assertHas([$servers[0]->url, $servers[1]->url], $e->getMessage());
            self::assertSame(2, substr_count($e->getMessage(), 'has not answered within'), $e->getMessage());
            self::assertSame(1, substr_count($e->getMessage(), 'another protocol'), $e->getMessage());
        }
    }

    public function testAnAddressOfAnotherProtocolIsRefusedWithASuggestion(): void
    {
        foreach (
            [
                'lockd://localhost:2626' => 'write tcp://HOST:PORT',
                'glockd://localhost:9999' => 'clients speak `message`',
                'glockd+tls://localhost:9999' => 'write tls://HOST:PORT',
                'lockd+unix:/run/lockd.sock' => 'write unix:/PATH',
                'http://localhost:8080/' => 'neither HTTP nor WebSocket',
                'ssl://localhost' => 'tls://HOST:PORT',
                'nonsense://localhost' => 'it must be tcp://HOST',
            ] as $url => $part
        ) {
            try {
                Address::parse($url);
                self::fail("$url was accepted");
            } catch (InvalidArgumentException $e) {
                self::assertHas([$part, $url], $e->getMessage());
            }
        }
    }
}
