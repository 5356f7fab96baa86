<?php

declare(strict_types=1);

namespace Lockd\Tests\Message;

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Message\Address;
use Lockd\Message\Dialer;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Swallower;
use PHPUnit\Framework\TestCase;

final class DialerTest extends TestCase
{
    public function testTriesEveryAddressOfTheHost(): void
    {
        $server = new Server();
        $swallower = new Swallower('127.0.0.2', $server->port());
        $hosts = [];
        $dialer = new Dialer(static function (string $host) use (&$hosts): array {
            $hosts[] = $host;
            return ['127.0.0.2', '[::1]', '127.0.0.1'];
        });
        $stream = $dialer->connect(Address::parse("tcp://several:{$server->port()}"), 4.0);
        self::assertSame("127.0.0.1:{$server->port()}", stream_socket_get_name($stream, true));
        self::assertSame(['several'], $hosts);
    }

    public function testReportsTheErrorOfTheLastAddress(): void
    {
        $dialer = new Dialer(static fn (): array => ['127.0.0.2', '127.0.0.3']);
        $this->expectException(ConnectException::class);
        $this->expectExceptionMessage('cannot connect to tcp://several:1: Connection refused');
        $dialer->connect(Address::parse('tcp://several:1'), 4.0);
    }

    public function testNumericAddressesAreNotResolved(): void
    {
        $server = new Server(['--listen', 'message://[::1]:0']);
        $dialer = new Dialer(static fn (): array => self::fail('a numeric address was resolved'));
        self::assertIsResource($dialer->connect(Address::parse($server->unix()), 4.0));
        Deadline::until('the server listens on every address', static fn (): bool =>
            preg_match('#message://(\[::1\]:\d+)#', $server->log()) === 1);
        preg_match('#message://(\[::1\]:\d+)#', $server->log(), $parts);
        self::assertIsResource($dialer->connect(Address::parse("tcp://$parts[1]"), 4.0));
    }

    public function testASocketThatIsConnectedToItselfIsRecognised(): void
    {
        $probe = stream_socket_server('tcp://127.0.0.1:0');
        assert($probe !== false);
        $address = stream_socket_get_name($probe, false);
        fclose($probe);
        $context = stream_context_create(['socket' => ['bindto' => $address]]);
        $itself = stream_socket_client("tcp://$address", context: $context);
        self::assertIsResource($itself);
        self::assertTrue(Dialer::isSelfConnected($itself));
        $server = new Server();
        foreach ([$server->tcp(), $server->unix()] as $url) {
            self::assertFalse(Dialer::isSelfConnected((new Dialer())->connect(Address::parse($url), 4.0)));
        }
    }

    public function testHostNamesAreResolvedByTheSystem(): void
    {
        $server = new Server();
        self::assertTrue(Client::connect("tcp://localhost:{$server->port()}")->stands());
    }
}
