<?php

declare(strict_types=1);

namespace Lockd\Tests\Transport;

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Message\MessageClient;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Meanwhile;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** What only concerns PHP's own streams: bytes that arrive in pieces, and silent servers. */
final class StreamTransportTest extends TestCase
{
    /** @return iterable<string, array{string|array<mixed>}> */
    public static function answers(): iterable
    {
        yield 'no status' => [['result' => []]];
        yield 'a status that nobody knows' => [['result' => ['status' => 'perhaps']]];
        yield 'a status of another type' => [['result' => ['status' => true]]];
        yield 'no result' => [[]];
        yield 'an error' => [['error' => 'no']];
        yield 'a refusal' => [['result' => ['status' => 'refused', 'reason' => 'as many locks are held as may be']]];
        yield 'a lock that is held already' => [['result' => ['status' => 'ok', 'token' => 7, 'already' => true]]];
        yield 'a lock without a token' => [['result' => ['status' => 'ok']]];
        yield 'no JSON' => [pack('N', 2) . '{}' . pack('N', 3) . '{,}'];
        yield 'no object' => [pack('N', 4) . 'true'];
        yield 'no length' => ["HTTP/1.0 400 Bad Request\r\n\r\n"];
        yield 'an end' => ['' . pack('N', 100) . '{'];
    }

    /**
     * @dataProvider answers
     * @param string|array<mixed> $answer
     */
    public function testOnlyTheStatusOkIsAGrant(string|array $answer): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send) use ($answer): void {
            FakeServer::hello($receive, $send);
            $request = $receive();
            $send(is_string($answer) ? $answer : FakeServer::frame(['id' => $request['id']] + $answer));
            if (is_string($answer)) {
                posix_kill(getmypid(), SIGKILL);
            }
        });
        $client = Client::connect($server->url);
        $this->expectException(LockdException::class);
        self::assertNull($client->acquire('doubtful', 30.0));
        self::fail('the answer counted as a grant');
    }

    public function testTheSecretIsReadFromTheNamedFile(): void
    {
        $file = (string) tempnam(sys_get_temp_dir(), 'lockd-secret');
        try {
            file_put_contents($file, "a secret that is long enough\n");
            $server = new Server(['--auth-token-file', $file]);
            $client = Client::connect($server->tcp() . "?auth-token-file=$file");
            $held = $client->acquire('x', 0.0);
            self::assertNotNull($held);
            foreach (['' => 'secret', '?auth-token-file=/nonexistent' => '/nonexistent'] as $more => $why) {
                try {
                    Client::connect($server->tcp() . $more);
                    self::fail('the server accepted a wrong secret');
                } catch (ConnectException $e) {
                    self::assertStringContainsString($why, $e->getMessage());
                }
            }
            putenv("LOCKD_AUTH_TOKEN_FILE=$file");
            self::assertNull(Client::connect($server->tcp())->acquire('x', 0.0));
        } finally {
            putenv('LOCKD_AUTH_TOKEN_FILE');
            unlink($file);
        }
    }

    public function testStreamsRefuseTlsAddresses(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('liblockd');
        Client::connect('tls://127.0.0.1:1?ca=/nonexistent');
    }

    public function testAnswersMayArriveInAnyOrderAndInPieces(): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send): void {
            FakeServer::hello($receive, $send);
            $lock = $receive();
            $result = ['id' => $lock['id'], 'result' => ['status' => 'ok', 'token' => 9007199254740991]];
            $bytes = FakeServer::frame(['id' => 4711, 'result' => ['status' => 'ok', 'token' => 1]])
                . FakeServer::frame(['id' => (string) $lock['id'], 'result' => ['status' => 'ok', 'token' => 2]])
                . FakeServer::frame(['attempted' => 'unlock', 'result' => 'ok', 'lockName' => 'pieces'])
                . FakeServer::frame($result + ['more' => str_repeat('.', 100_000)]);
            foreach (str_split($bytes, 7001) as $piece) {
                $send($piece);
            }
            $ping = $receive();
            foreach (str_split(FakeServer::frame(['id' => $ping['id'], 'result' => ['status' => 'ok']]), 1) as $byte) {
                $send($byte);
            }
        });
        $lock = Client::connect($server->url)->acquire('pieces', 30.0);
        self::assertSame(9007199254740991, $lock?->token());
        self::assertTrue($lock->isHeld());
    }

    public function testALongOwnersNameIsShortened(): void
    {
        $server = new Server();
        $client = Client::connect($server->tcp(), 'x' . str_repeat('ß', 200));
        $lock = $client->acquire('mine', 0.0);
        self::assertTrue($lock?->isHeld());
        foreach ($client->list() as $listed) {
            self::assertSame('x' . str_repeat('ß', 127), $listed->holders[0]->owner);
        }
    }

    public function testTheSizeOfALongCycleIsReported(): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send): void {
            FakeServer::hello($receive, $send);
            foreach ([['circle' => ['a', 'b'], 'circleSize' => 40], ['circleSize' => 3]] as $circle) {
                $request = $receive();
                $result = ['status' => 'deadlock'] + $circle;
                $send(FakeServer::frame(['id' => $request['id'], 'result' => $result]));
            }
        });
        $client = Client::connect($server->url);
        foreach ([[['a', 'b'], 'deadlock: a > b > … (40 owners)'], [[], 'deadlock: (3 owners)']] as [$circle, $words]) {
            try {
                $lock = $client->acquire('round', 30.0);
                self::fail('the deadlock was not reported');
            } catch (DeadlockException $e) {
                self::assertSame($circle, $e->circle);
                self::assertStringEndsWith($words, $e->getMessage());
            }
        }
    }

    public function testHoldersAndWaitersThatAreNotListedAreCounted(): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send): void {
            FakeServer::hello($receive, $send);
            $request = $receive();
            $locks = [['lockName' => 'crowded', 'moreHolders' => 3, 'moreWaiters' => 400], ['lockName' => 'quiet']];
            $send(FakeServer::frame(['id' => $request['id'], 'result' => ['status' => 'ok', 'locks' => $locks]]));
        });
        [$crowded, $quiet] = [...Client::connect($server->url)->list()];
        self::assertSame([3, 400], [$crowded->moreHolders, $crowded->moreWaiters]);
        self::assertSame([0, 0], [$quiet->moreHolders, $quiet->moreWaiters]);
    }

    public function testAnEmptyPageEndsTheListing(): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send): void {
            FakeServer::hello($receive, $send);
            for ($page = 0; $page < 2; $page++) {
                $request = $receive();
                $send(FakeServer::frame(['id' => $request['id'], 'result' =>
                    ['status' => 'ok', 'more' => true, 'locks' => $page === 0 ? [['lockName' => 'a']] : []]]));
            }
        });
        $names = array_map(fn ($lock) => $lock->name, [...Client::connect($server->url)->list()]);
        self::assertSame(['a'], $names);
    }

    public function testATimeLimitIsSentAtFullPrecision(): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send): void {
            FakeServer::hello($receive, $send);
            $request = $receive();
            $isAsIs = abs($request['parameters']['timeLimit'] - 14.55) < 0.04;
            $send(FakeServer::frame(['id' => $request['id'], 'result' =>
                ['status' => $isAsIs ? 'timeout' : 'refused']]));
        });
        $client = Client::connect($server->url);
        $before = ini_set('serialize_precision', '1');
        try {
            self::assertNull($client->acquire('exact', 14.55));
            self::assertSame('1', ini_get('serialize_precision'));
        } finally {
            ini_set('serialize_precision', (string) $before);
        }
    }

    public function testAnErrorHandlerThatThrowsChangesNothing(): void
    {
        $server = new Server();
        [$a, $b] = [Client::connect($server->tcp()), Client::connect($server->tcp())];
        $held = $a->acquire('strict');
        set_error_handler(static fn (int $level, string $text) => throw new \ErrorException($text));
        $meanwhile = Meanwhile::does(fn () => $held?->release());
        try {
            self::assertTrue($b->acquire('strict', 30.0)?->isHeld());
            try {
                Client::connect('tcp://127.0.0.1:1');
                self::fail('connected without a server');
            } catch (ConnectException $e) {
                self::assertStringContainsString('127.0.0.1:1', $e->getMessage());
            }
            self::assertTrue(Client::connect($server->tcp())->stands());
            $server->kill();
            self::assertFalse($b->stands());
        } finally {
            restore_error_handler();
        }
    }

    public function testASilentServerDoesNotBlockAClient(): void
    {
        $server = new Server();
        $client = Client::connect($server->tcp(), null, 0.3);
        $locks = [$client->acquire('silent'), $client->acquire('silent/2')];
        $server->pause();
        self::assertFalse($locks[0]?->isHeld());
        // From then on the connection is lost, whatever arrives on it later.
        $server->resume();
        self::assertFalse($locks[1]?->isHeld());
        $this->expectException(ConnectionLostException::class);
        $lock = $client->acquire('silent/3');
    }

    public function testAWaitEndsAtItsLimitIfTheServerIsSilent(): void
    {
        $server = new Server();
        [$a, $b] = [Client::connect($server->tcp()), Client::connect($server->tcp(), null, 0.3)];
        $held = $a->acquire('overdue');
        $server->pause();
        try {
            $lock = $b->acquire('overdue', 0.2);
            self::fail('a silent server counted as an answer');
        } catch (ConnectionLostException $e) {
            self::assertStringContainsString('not answered', $e->getMessage());
        }
        $server->resume();
        self::assertTrue($held?->isHeld());
    }

    public function testConnectingToASilentServerThrows(): void
    {
        $silent = stream_socket_server('tcp://127.0.0.1:0');
        self::assertIsResource($silent);
        $this->expectException(ConnectException::class);
        Client::connect('tcp://' . stream_socket_get_name($silent, false), null, 0.2);
    }

    /** @return iterable<string, array{bool}> */
    public static function pingAnsweredOrNot(): iterable
    {
        return ['answered' => [true], 'not answered' => [false]];
    }

    /**
     * The network may be cut during a wait. Then the end of the connection does not arrive.
     *
     * @dataProvider pingAnsweredOrNot
     */
    public function testALateGrantIsConfirmedWithAPing(bool $isAnswered): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send) use ($isAnswered): void {
            $ok = static fn (array $request, array $more): string =>
                FakeServer::frame(['id' => $request['id'], 'result' => ['status' => 'ok'] + $more]);
            // With this value an answer proves that the server keeps the locks for 2.5 s, the
            // minimum.
            $send($ok($receive(), ['keepalive' => ['deadPeerTimeout' => 0]]));
            $lock = $receive();
            usleep(2_600_000);
            $send($ok($lock, ['token' => 7]));
            $ping = $receive();
            if ($isAnswered) {
                $send($ok($ping, []));
                $send($ok($receive(), ['mode' => $ping['command']]));
                $send($ok($receive(), []));
            }
        });
        $client = Client::connect($server->url, null, $isAnswered ? 30.0 : 0.3);
        if (!$isAnswered) {
            $this->expectException(ConnectionLostException::class);
            $this->expectExceptionMessage('not answered');
        }
        $lock = $client->acquire('slow', 60.0);
        self::assertSame('ping', $client->inspect('slow')->mode);
        self::assertTrue($lock?->release());
    }

    /** @return iterable<array{string}> */
    public static function invalidAddresses(): iterable
    {
        $urls = ['', 'localhost', 'localhost:1', 'glockd://localhost', 'tcp://', 'tcp://:1', 'tcp://h:0',
            'tcp://h:65536', 'tcp://h:1/x', 'tcp://::1', 'unix:relative', 'unix:', "unix:/a\0b", 'tcp://a,',
            'tcp://a,tcp://a:20934'];
        foreach ($urls as $url) {
            yield $url => [$url];
        }
    }

    /** @dataProvider invalidAddresses */
    public function testInvalidAddressesAreRefused(string $url): void
    {
        $this->expectException(InvalidArgumentException::class);
        Client::connect($url);
    }

    public function testKeepaliveOptionsAreSet(): void
    {
        $server = new Server(['--dead-peer-timeout', '60']);
        $client = Client::connect($server->tcp());
        $sockets = array_filter(get_resources('stream'), static fn ($stream): bool =>
            ((array) stream_get_meta_data($stream))['stream_type'] !== 'STDIO'
            && str_ends_with((string) stream_socket_get_name($stream, true), ':' . $server->port()));
        self::assertCount(1, $sockets);
        $socket = socket_import_stream(reset($sockets));
        self::assertInstanceOf(\Socket::class, $socket);
        $options = [
            socket_get_option($socket, SOL_SOCKET, SO_KEEPALIVE),
            socket_get_option($socket, SOL_TCP, TCP_NODELAY),
            socket_get_option($socket, SOL_TCP, TCP_KEEPIDLE),
            socket_get_option($socket, SOL_TCP, TCP_KEEPINTVL),
            socket_get_option($socket, SOL_TCP, TCP_KEEPCNT),
            socket_get_option($socket, SOL_TCP, 18),
        ];
        // The figures in docs/protocol.md for 60 s.
        self::assertSame([1, 1, 6, 2, 5, 16000], $options);
        self::assertTrue($client->stands());
    }

    public function testAProcessStartedInTheBackgroundDoesNotKeepTheLocks(): void
    {
        $server = new Server();
        [$a, $b] = [Client::connect($server->tcp()), Client::connect($server->tcp())];
        $lock = $a->acquire('background');
        // Programs that PHP starts inherit its sockets.
        $pid = (int) exec('exec sleep 60 > /dev/null 2>&1 & echo $!');
        try {
            self::assertGreaterThan(0, $pid);
            $waiting = $a;
            unset($lock);
            self::assertNotNull($b->acquire('background', 30.0)?->release());
            $lock = $waiting->acquire('background');
            $waiting->close();
            self::assertNotNull($b->acquire('background', 30.0));
            // The connection itself has ended, too.
            $observer = MessageClient::connect($server->tcp());
            Deadline::until('the server notices the end', fn (): bool => $observer->rpc('stats')['connections'] === 2);
        } finally {
            posix_kill($pid, SIGKILL);
        }
    }

    public function testWorksWithMoreDescriptorsThanSelectAllows(): void
    {
        $server = new Server();
        // More than select(2) can handle.
        $files = [];
        while (count($files) < 1100) {
            $file = @fopen('/dev/null', 'r');
            if ($file === false) {
                self::markTestSkipped('this process may not open so many files');
            }
            $files[] = $file;
        }
        [$a, $b] = [Client::connect($server->tcp()), Client::connect($server->tcp())];
        $lock = $a->acquire('many');
        self::assertNull($b->acquire('many', 0.05));
        self::assertTrue($lock?->release());
        self::assertTrue($b->acquire('many', 0.0)?->isHeld());
    }

    public function testARefusalCarriesTheServersReason(): void
    {
        $server = new Server(['--locks-max', '1']);
        $client = Client::connect($server->tcp());
        $lock = $client->acquire('the only one');
        try {
            $second = $client->acquire('one more', 0.0);
            self::fail('a lock over the limit was granted');
        } catch (RefusedException $e) {
            self::assertStringContainsString('locks', $e->getMessage());
        }
        self::assertTrue($lock?->isHeld());
    }
}
