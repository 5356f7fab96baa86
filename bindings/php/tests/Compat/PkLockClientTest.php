<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Swallower;
use pkLockClient;
use ReflectionProperty;

require_once __DIR__ . '/../../compat/pkLockClient.php';

final class PkLockClientTest extends CompatTestCase
{
    private const AT_ONCE = ['timeLimit' => 0];

    private function client(?int $port = null): pkLockClient
    {
        return new pkLockClient(['host' => '127.0.0.1', 'port' => $port ?? $this->server->port()]);
    }

    private function assertBecomesFree(string $name): void
    {
        self::assertTrue($this->client()->lock($name), "$name does not become free");
    }

    public function testOldScriptsRunUnchanged(): void
    {
        $this->assertSameTranscript('pklockclient_script.php', 'pkLockClient.php', $this->server->port());
    }

    public function testOldAndNewClassesExcludeEachOther(): void
    {
        $port = $this->server->port();
        $this->assertNothingLost('pklockclient_script.php', 'pkLockClient.php', $this->server, $port);
    }

    public function testLockWaitsUntilTheTimeLimit(): void
    {
        [$one, $two] = [$this->client(), $this->client()];
        self::assertTrue($one->lock('a'));
        self::assertTrue($one->lock('a'), 'its own lock is granted again');
        self::assertFalse($two->lock('a', self::AT_ONCE));
        self::assertFalse($two->lock('a', ['timeLimit' => '0.1']));
        self::assertSame('', $two->error());
        self::assertSame('ok', $one->rpc('inspect', ['lockName' => 'a'])['status']);
        self::assertSame(0, $one->rpc('inspect', ['lockName' => 'a'])['waiters']);
        self::assertTrue($one->unlock('a'));
        self::assertTrue($two->lock('a', ['timeLimit' => false]));
    }

    public function testRefusesAnInvalidTimeLimit(): void
    {
        self::assertFalse($this->client()->lock('a', ['timeLimit' => 'soon']));
        $this->assertWarned('time limit');
    }

    public function testSendsNamesUnchanged(): void
    {
        [$one, $two] = [$this->client(), $this->client()];
        foreach ([7, '', ' a  b ', "a\n\0b", "\xff\xfe", "\u{1F512}"] as $name) {
            self::assertTrue($one->lock($name));
            self::assertFalse($two->lock($name, self::AT_ONCE));
            self::assertTrue($one->unlock($name));
            self::assertTrue($two->lock($name, self::AT_ONCE));
        }
        self::assertFalse($one->lock(['a']));
        $this->assertWarned('must be a string');
        self::assertFalse($one->lock(str_repeat('x', 2000)));
        self::assertStringContainsString('longer than 1024 bytes', $one->error());
    }

    public function testAcceptsEveryFormOfAServersAddress(): void
    {
        self::assertTrue((new pkLockClient(['host' => $this->server->unix()]))->lock('a'));
        $options = ['port' => (string) $this->server->port(), 'other' => 'thing'];
        self::assertTrue((new pkLockClient($options))->lock('a'));
    }

    public function testConnectsWhenACallFirstNeedsIt(): void
    {
        $this->server->kill();
        $client = $this->client();
        self::assertFalse($client->lock('a'));
        $this->assertWarned('pkLockClient: cannot connect to tcp://127.0.0.1:');
        $this->server->startAgain();
        self::assertTrue($client->unlock('a'));
        self::assertTrue($client->flush());
        self::assertFalse($client->poll());
        $observer = $this->client();
        self::assertSame(1, $observer->rpc('stats')['connections']);
        self::assertTrue($client->lock('a'));
        self::assertTrue($client->poll());
        self::assertSame(2, $observer->rpc('stats')['connections']);
    }

    public function testTheConstructorSetsTimeLimits(): void
    {
        [$holder, $options] = [$this->client(), ['host' => '127.0.0.1', 'port' => $this->server->port()]];
        self::assertTrue($holder->lock('a'));
        $client = new pkLockClient($options + ['timeLimit' => 0, 'answerTimeLimit' => 0.1]);
        self::assertFalse($client->lock('a'));
        self::assertSame('timeout', $client->rpc('lock', ['lockName' => 'a'])['status']);
        self::assertTrue($holder->unlock('a'));
        self::assertTrue($client->lock('a', ['timeLimit' => false]));
        $this->server->pause();
        self::assertFalse($client->unlock('a'));
        $this->assertWarned('does not answer an unlock');
        $this->server->resume();

        $swallower = new Swallower('127.0.0.2', $this->server->port());
        $swallowed = new pkLockClient(['host' => '127.0.0.2', 'connectTimeLimit' => 0.1] + $options);
        self::assertFalse($swallowed->lock('a'));
        $this->assertWarned('cannot connect to tcp://127.0.0.2:');
        foreach (['timeLimit', 'answerTimeLimit', 'connectTimeLimit'] as $option) {
            self::assertFalse((new pkLockClient($options + [$option => 'soon']))->rpc('ping'));
            $this->assertWarned('a time limit must be a number of seconds');
        }
    }

    public function testFlushWaitsForTheAnswersThatAreOutstanding(): void
    {
        $options = ['host' => '127.0.0.1', 'port' => $this->server->port(), 'answerTimeLimit' => 0.1];
        [$client, $other] = [new pkLockClient($options), $this->client()];
        self::assertTrue($client->lock('a'));
        $this->server->pause();
        foreach ([1, 2] as $time) {
            self::assertFalse($client->unlock('a'));
            $this->assertWarned('does not answer an unlock');
        }
        self::assertTrue($client->poll(), 'the connection is there');
        self::assertFalse($client->flush());
        $this->assertWarned('does not answer');
        $this->server->resume();
        Deadline::until('all is answered', static fn (): bool => $client->flush());
        $this->forgetWarnings();
        self::assertTrue($other->lock('a', self::AT_ONCE));
        // The second of the two unlocks had nothing to release, and that was no loss.
        self::assertTrue($client->unlock('a'));
    }

    /** A server on which the lock has gone while its connection lives: it must not look released. */
    public function testAnUnlockOfALockThatIsGoneFails(): void
    {
        $fake = new FakeServer(static function ($connection): void {
            while (($message = FakeServer::receive($connection)) !== null) {
                $reply = match ($message['command']) {
                    'lock' => ['id' => $message['id'], 'result' => ['status' => 'ok']],
                    'unlock' => ['attempted' => 'unlock', 'result' => 'notFound', 'lockName' => 'a'],
                    default => ['id' => $message['id'], 'result' => []],
                };
                fwrite($connection, FakeServer::frame($reply));
            }
        });
        $client = $this->client($fake->port);
        self::assertTrue($client->lock('a'));
        self::assertFalse($client->unlock('a'));
        $this->assertWarned('the server says to an unlock: "notFound"');
        self::assertTrue($client->unlock('a'), 'the loss has been told');
    }

    public function testPollNoticesALoss(): void
    {
        [$idle, $holder] = [$this->client(), $this->client()];
        self::assertTrue($holder->lock('a'));
        self::assertSame('ok', $idle->rpc('ping')['status']);
        $this->server->restart();
        self::assertFalse($idle->poll());
        self::assertFalse($holder->poll());
        $this->assertWarned('all its locks are lost');
        self::assertFalse($holder->unlock('a'));
        self::assertFalse($holder->flush());
        self::assertTrue($idle->unlock('a'));
    }

    public function testRpcSendsAnyCommand(): void
    {
        [$client, $other] = [$this->client(), $this->client()];
        self::assertSame(['status' => 'ok', 'parameters' => ['n' => [1]]], $client->rpc('ping', ['n' => [1]]));
        self::assertSame('unknown', $client->rpc('dance')['status']);
        self::assertFalse($client->rpc('ping', ["\xff"]));
        $this->assertWarned('cannot be sent');
        self::assertSame('ok', $client->rpc('lock', ['lockNames' => ['a', 'b']])['status']);
        self::assertSame('timeout', $other->rpc('lock', ['lockName' => 'b'], ['timeLimit' => 0.1])['status']);
        self::assertSame('ok', $client->rpc('unlock', ['lockName' => 'b'])['status']);
        self::assertTrue($other->lock('b'));
        // The loss of a lock acquired by rpc() must be reported, too.
        $this->server->restart();
        self::assertFalse($client->lock('b'));
        $this->assertWarned('all its locks are lost');
    }

    public function testNoCallSucceedsAfterTheServerIsGone(): void
    {
        $client = $this->client();
        self::assertTrue($client->lock('held'));
        $this->server->restart();
        self::assertFalse($client->lock('held'));
        $this->assertWarned('has ended the connection; all its locks are lost');
        self::assertFalse($client->lock('other'));
        self::assertFalse($client->unlock('held'));
        self::assertFalse($client->rpc('ping'));
        $this->assertNotWarned();
        self::assertTrue($this->client()->lock('held'));
    }

    public function testReconnectsIfNoLockWasHeld(): void
    {
        $client = $this->client();
        self::assertTrue($client->lock('a'));
        self::assertTrue($client->unlock('a'));
        $this->server->restart();
        self::assertTrue($client->lock('a'));
        self::assertFalse($this->client()->lock('a', self::AT_ONCE));
    }

    public function testWarnsWithTheServersReasonForRefusingIt(): void
    {
        $this->server = new Server(['--connections-max', '1']);
        $first = $this->client();
        self::assertTrue($first->lock('a'));
        $second = $this->client();
        self::assertFalse($second->lock('a'));
        $this->assertWarned('pkLockClient: ');
    }

    public function testNamesTheProtocolOfAWrongPort(): void
    {
        foreach (['lockd', 'glockd'] as $protocol) {
            self::assertFalse($this->client($this->server->port($protocol))->lock('a'));
            $this->assertWarned("a text protocol there (\"0 Refused: this port speaks $protocol, not message\"): ");
        }
        foreach (
            [
                "\x15\x03\x03\0\x02\x02\x46" => 'TLS there, which this class does not',
                "HTTP/1.1 400 Bad Request\r\n\r\n" => 'HTTP there ("HTTP/1.1 400 Bad Request")',
                "SSH-2.0-\x1b\r\n" => 'a text protocol there ("SSH-2.0-\\033")',
            ] as $bytes => $what
        ) {
            $fake = new FakeServer(static function ($connection) use ($bytes): void {
                FakeServer::receive($connection);
                fwrite($connection, $bytes);
                // Send nothing more until the client disconnects.
                stream_get_contents($connection);
            });
            self::assertFalse($this->client($fake->port)->lock('a'));
            $this->assertWarned("$what: this class needs a port with the message protocol (20934");
        }
    }

    public function testLockFailsIfTheServerHangs(): void
    {
        [$client, $other] = [$this->client(), $this->client()];
        self::assertTrue($client->lock('held'));
        $this->server->pause();
        self::assertFalse($client->lock('late', ['timeLimit' => 0.1]));
        $this->assertWarned('does not answer an unlock');
        $this->server->resume();
        self::assertTrue($other->lock('late'), 'the request was not withdrawn');
        self::assertFalse($other->lock('held', self::AT_ONCE), 'the held lock was released');
        self::assertTrue($client->unlock('held'));
    }

    /**
     * A server like the original: it does not answer `hello`, keeps no time limits, and grants the
     * lock at the moment when the client gives up, or even later.
     *
     * @dataProvider lateGrants
     * @param list<array> $unlocked its answers to the unlock
     */
    public function testAGrantAfterTheTimeLimitIsWithdrawn(array $unlocked): void
    {
        $log = $this->server->directory() . '/requests';
        $fake = new FakeServer(static function ($connection) use ($unlocked, $log): void {
            while (($message = FakeServer::receive($connection)) !== null) {
                file_put_contents($log, $message['command'] . "\n", FILE_APPEND);
                $name = $message['lockName'] ?? $message['parameters']['lockName'] ?? '';
                $replies = [];
                if ($message['command'] === 'unlock') {
                    $replies = $unlocked;
                } elseif ($name === 'free') {
                    $replies = [['id' => $message['id'], 'result' => ['status' => 'ok']]];
                }
                fwrite($connection, implode('', array_map([FakeServer::class, 'frame'], $replies)));
            }
        });
        $client = $this->client($fake->port);
        self::assertFalse($client->lock('late', ['timeLimit' => 0.1]));
        self::assertFalse($client->lock('never', ['timeLimit' => 0.1]));
        self::assertTrue($client->lock('free', ['timeLimit' => 0.1]));
        self::assertFalse($client->rpc('ping', [], ['timeLimit' => 0.1]), 'the original server does not know `ping`');
        unset($client);
        $requests = "hello\nlock\nunlock\nlock\nunlock\nlock\nping\n";
        Deadline::until('every request has arrived', static fn (): bool => file_get_contents($log) === $requests);
    }

    /** @return iterable<string, array{list<array>}> */
    public function lateGrants(): iterable
    {
        $grant = ['id' => 0, 'result' => ['status' => 'ok']];
        $unlocked = ['attempted' => 'unlock', 'result' => 'ok', 'lockName' => 'late'];
        return [
            'crossing' => [[$grant, $unlocked]],
            'after the unlock' => [[$unlocked, $grant]],
            'none' => [[['attempted' => 'unlock', 'result' => 'notFound', 'lockName' => 'late']]],
        ];
    }

    /**
     * @dataProvider lies
     */
    public function testAnInvalidAnswerDoesNotCountAsAGrant(string $lie): void
    {
        $fake = new FakeServer(static function ($connection) use ($lie): void {
            FakeServer::receive($connection);
            $first = FakeServer::receive($connection);
            fwrite($connection, FakeServer::frame(['id' => $first['id'], 'result' => ['status' => 'ok']]));
            FakeServer::receive($connection);
            fwrite($connection, $lie);
        });
        $client = $this->client($fake->port);
        self::assertTrue($client->lock('a'));
        self::assertFalse($client->lock('b', ['timeLimit' => 0.1]));
        $this->assertWarned('all its locks are lost');
        self::assertFalse($client->lock('a'));
    }

    /** @return iterable<string, array{string}> */
    public function lies(): iterable
    {
        $results = [[], ['result' => 'ok'], ['result' => true], ['result' => ['ok']], ['error' => 'ok']];
        foreach ([true, 1, 'OK', 'okay', ['ok'], null, 'granted'] as $status) {
            $results[] = ['result' => ['status' => $status]];
        }
        foreach ($results as $result) {
            yield json_encode($result) => [FakeServer::frame(['id' => 1] + $result)];
        }
        foreach ([0, '1', 2, null, 1.5, 'hello'] as $id) {
            $grant = ['id' => $id, 'result' => ['status' => 'ok']];
            yield 'id ' . json_encode($id) => [FakeServer::frame($grant)];
        }
        yield 'no JSON' => [pack('N', 4) . 'ok!!'];
        yield 'no object' => [pack('N', 4) . '"ok"'];
        yield 'empty' => [pack('N', 0)];
        yield 'text' => ["1 Got Lock\r\n"];
        yield 'half' => [substr(FakeServer::frame(['id' => 1, 'result' => ['status' => 'ok']]), 0, -1)];
        yield 'a complaint' => [FakeServer::frame(['error' => 'no more'])];
    }

    public function testReadsMessagesThatArriveInPieces(): void
    {
        $fake = new FakeServer(static function ($connection): void {
            FakeServer::receive($connection);
            $greeting = FakeServer::frame(['id' => 'hello', 'result' => 'whatever']);
            while (($message = FakeServer::receive($connection)) !== null) {
                $reply = FakeServer::frame(['id' => $message['id'], 'result' => ['status' => 'ok', 'more' => 'ä']]);
                $frames = $greeting . $reply;
                foreach ($message['id'] === 0 ? [$frames] : str_split($frames, 1) as $piece) {
                    fwrite($connection, $piece);
                    fflush($connection);
                }
            }
        });
        $client = $this->client($fake->port);
        self::assertTrue($client->lock('a'));
        self::assertTrue($client->lock('b'));
        self::assertSame(['status' => 'ok', 'more' => 'ä'], $client->rpc('c'));
    }

    public function testTriesEveryAddressOfItsHost(): void
    {
        $swallower = new Swallower('127.0.0.2', $this->server->port());
        $client = new class (['host' => 'several', 'port' => $this->server->port()]) extends pkLockClient {
            protected function resolve(string $host): array
            {
                // With more addresses, the first one's share of the time is shorter.
                return $host === 'several' ? ['127.0.0.2', '127.0.0.1', ...array_fill(0, 8, '127.0.0.3')] : [];
            }
        };
        self::assertTrue($client->lock('a'));
        self::assertFalse($this->client()->lock('a', self::AT_ONCE));
    }

    /** @return iterable<string, array{bool}> */
    public function pingAnsweredOrNot(): iterable
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
        $fake = new FakeServer(static function ($connection) use ($isAnswered): void {
            $answer = static fn (array $result) => fwrite($connection, FakeServer::frame($result));
            FakeServer::receive($connection);
            $answer(['id' => FakeServer::receive($connection)['id'], 'result' => []]);
            $lock = FakeServer::receive($connection);
            usleep(50_000);
            $answer(['id' => $lock['id'], 'result' => ['status' => 'ok']]);
            while ($isAnswered && ($ping = FakeServer::receive($connection)) !== null) {
                $answer(['id' => $ping['id'], 'result' => ['status' => $ping['command']]]);
            }
            // Otherwise it ends the connection when it is asked.
            FakeServer::receive($connection);
        });
        $client = $this->client($fake->port);
        self::assertSame([], $client->rpc('connect'));
        $proofLasts = new ReflectionProperty(pkLockClient::class, 'proofLasts');
        $proofLasts->setAccessible(true);
        $proofLasts->setValue($client, 0.02);
        self::assertSame($isAnswered, $client->lock('a'));
        $isAnswered || $this->assertWarned('has ended the connection');
    }

    public function testSetsKeepaliveOptionsFromTheServersTimeout(): void
    {
        foreach ([25 => [1, 3, 1, 4, 7000], 60 => [1, 6, 2, 5, 16000]] as $timeout => $figures) {
            $this->server = new Server(['--dead-peer-timeout', (string) $timeout]);
            $client = $this->client();
            self::assertTrue($client->lock('a'));
            $connection = new ReflectionProperty(pkLockClient::class, 'connection');
            $connection->setAccessible(true);
            $socket = socket_import_stream($connection->getValue($client));
            $found = [socket_get_option($socket, SOL_SOCKET, SO_KEEPALIVE)];
            foreach ([TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, 18] as $option) {
                $found[] = socket_get_option($socket, SOL_TCP, $option);
            }
            self::assertSame($figures, $found);
            $proofLasts = new ReflectionProperty(pkLockClient::class, 'proofLasts');
            $proofLasts->setAccessible(true);
            self::assertSame([25 => 16.5, 60 => 34.5][$timeout], $proofLasts->getValue($client));
        }
    }

    public function testFreesItsLocksWhenTheObjectIsDestroyed(): void
    {
        $client = $this->client();
        // With arguments in traces, a trace that is kept anywhere would keep the object alive.
        $this->iniSet('zend.exception_ignore_args', '0');
        self::assertTrue($client->lock('a'));
        self::assertFalse($client->lock([]));
        $this->assertWarned('must be a string');
        unset($client);
        self::assertTrue($this->client()->lock('a'));
    }

    public function testAForkedChildCannotUseTheConnection(): void
    {
        $client = $this->client();
        self::assertTrue($client->lock('held'));
        $outcome = $this->inChild(function () use (&$client): array {
            $answers = [$client->lock('held'), $client->unlock('held'), $client->rpc('ping')];
            $error = $client->error();
            $client = null;
            $own = $this->client();
            return [$answers, $error, $own->lock('held', self::AT_ONCE), $own->lock('other')];
        });
        self::assertSame([false, false, false], $outcome[0]);
        self::assertStringContainsString('parent', $outcome[1]);
        self::assertSame([false, true], [$outcome[2], $outcome[3]]);
        $this->inChild(function () use (&$client): void {
            $client = null;
        });
        self::assertFalse($this->client()->lock('held', self::AT_ONCE), 'the child has released it');
        self::assertTrue($client->unlock('held'));
    }
}
