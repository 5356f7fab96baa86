<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

use ErrorException;
use lockc;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Swallower;
use Lockd\Tests\Support\Unread;
use ReflectionProperty;

require_once __DIR__ . '/../../compat/lockc.php';

final class LockcTest extends CompatTestCase
{
    private function client(float $timeout = 20, string $protocol = 'lockd'): lockc
    {
        return new lockc('127.0.0.1', $this->server->port($protocol), $timeout);
    }

    /**
     * Asserts that another client gets this lock, at the latest when the server has noticed the
     * loss of its holder.
     */
    private function assertBecomesFree(string $name): void
    {
        $other = $this->client();
        Deadline::until("$name is free", fn (): bool => $other->lock($name) === 1);
        self::assertSame(1, $other->unlock($name));
    }

    /** @return iterable<string, array{string}> */
    public function protocols(): iterable
    {
        return ['lockd' => ['lockd'], 'glockd' => ['glockd']];
    }

    /** @dataProvider protocols */
    public function testOldScriptsRunUnchanged(string $protocol): void
    {
        $this->assertSameTranscript('lockc_script.php', 'lockc.php', $this->server->port($protocol));
    }

    /** @dataProvider protocols */
    public function testOldAndNewClassesExcludeEachOther(string $protocol): void
    {
        $port = $this->server->port($protocol);
        $this->assertNothingLost('lockc_script.php', 'lockc.php', $this->server, $port);
    }

    public function testHasTheOriginalsPublicProperties(): void
    {
        $client = new lockc('localhost', 1);
        $names = array_keys(get_object_vars($client));
        self::assertSame(['host', 'port', 'timeout', 'fp', 'errno', 'errst'], $names);
        self::assertSame(['localhost', 1, 10, false], [$client->host, $client->port, $client->timeout, $client->fp]);
        self::assertFalse($client->connect());
        $this->assertWarned('cannot connect to');
        self::assertFalse($client->fp);
        self::assertSame([SOCKET_ECONNREFUSED, 'Connection refused'], [$client->errno, $client->errst]);
        // They take effect when it connects next.
        [$client->host, $client->port] = ['127.0.0.1', (string) $this->server->port('lockd')];
        self::assertTrue($client->connect());
        self::assertIsResource($client->fp);
        self::assertSame([0, ''], [$client->errno, $client->errst]);
        self::assertSame(1, $client->lock('a'));
        $client->port = 1;
        self::assertTrue($client->connect());
        self::assertSame(1, $client->is_locked('a'), 'it is still connected');
    }

    public function testTheTimeoutAppliesOnlyToConnecting(): void
    {
        $client = $this->client(0.1);
        self::assertTrue($client->connect());
        $this->server->pause();
        $port = $this->server->port('lockd');
        $child = Child::start(function () use ($port): void {
            Unread::byServer($port);
            usleep(300_000);
            $this->server->resume();
        });
        self::assertSame(1, $client->lock('a'));
        self::assertSame('done', $child->hear());
    }

    public function testConnectReconnectsAfterALossHasBeenReported(): void
    {
        $client = $this->client();
        self::assertSame(1, $client->lock('held'));
        $this->server->restart();
        self::assertFalse($client->connect(), 'the first call must report the loss');
        $this->assertWarned('all its locks are lost');
        self::assertSame(0, $client->lock('other'));
        self::assertTrue($client->connect());
        self::assertSame(0, $client->is_locked('held'));
        self::assertSame(1, $client->lock('other'));
    }

    public function testAProgramMayCloseTheConnectionItself(): void
    {
        $client = $this->client();
        self::assertSame(1, $client->lock('held'));
        fclose($client->fp);
        $this->assertBecomesFree('held');
        self::assertSame(1, $client->lock('held'));
        self::assertSame(0, $this->client()->lock('held'));
    }

    public function testTriesEveryAddressOfItsHost(): void
    {
        $port = $this->server->port('lockd');
        $swallower = new Swallower('127.0.0.2', $port);
        $client = new class ('several', $port, 4) extends lockc {
            protected function resolve(string $host): array
            {
                return $host === 'several' ? ['127.0.0.2', '127.0.0.3', '127.0.0.1'] : [];
            }
        };
        self::assertSame(1, $client->lock('a'));
        self::assertSame(0, $this->client()->lock('a'));
    }

    public function testAcceptsEveryFormOfAServersAddress(): void
    {
        $socket = $this->server->directory() . '/text.sock';
        $server = new Server(['--listen', "lockd+unix:$socket", '--listen', 'glockd://[::1]:0']);
        // The server logs its addresses one by one, these last.
        Deadline::until('it listens everywhere', fn (): bool => str_contains($server->log(), 'glockd://[::1]'));
        foreach (["unix:$socket", "unix://$socket"] as $host) {
            self::assertSame(1, (new lockc($host))->lock($host), $host);
        }
        preg_match('#glockd://\[::1\]:(\d+)#', $server->log(), $port);
        self::assertSame(1, (new lockc('::1', $port[1]))->lock('::1'));
        self::assertSame(1, (new lockc('[::1]', $port[1]))->lock('[::1]'));
        foreach (['localhost', 'tcp://127.0.0.1'] as $host) {
            self::assertSame(1, (new lockc($host, (string) $server->port('lockd')))->lock($host), $host);
        }
    }

    public function testRefusesNamesWithNewlinesOrNuls(): void
    {
        [$client, $other] = [$this->client(), $this->client()];
        self::assertSame(1, $client->lock('a'));
        self::assertSame(0, $client->lock("b\nr a"));
        $this->assertWarned('newline');
        self::assertSame(0, $client->lock("b\0c"));
        $this->assertWarned('newline or a NUL');
        self::assertSame(0, $client->lock(['b']));
        $this->assertWarned('must be a string');
        self::assertSame(0, $client->lock(new \stdClass()));
        $this->assertWarned('must be a string');
        self::assertSame(0, $other->lock('a'));
        self::assertSame(0, $other->is_locked('b'));
    }

    /** @return iterable<array{string}> */
    public function foldedNames(): iterable
    {
        return [['two  blanks'], [' leading'], ['trailing '], ["a\ttab"], ["from a file\n"], ["\x0b\x0c\r"]];
    }

    /** @dataProvider foldedNames */
    public function testWarnsOnceOfNamesWithFoldedWhiteSpace(string $name): void
    {
        [$client, $other] = [$this->client(), $this->client()];
        self::assertSame(1, $client->lock($name));
        $this->assertWarned('fold white space');
        self::assertSame(1, $client->is_locked($name));
        self::assertSame(1, $client->unlock('  and  another  ') + $client->unlock($name));
        self::assertSame('', $client->error(), 'a warning about a name is not an error');
        self::assertSame(0, $other->is_locked('one blank'));
        $this->assertNotWarned();
    }

    public function testAWarningThatBecomesAnExceptionSendsNoRequest(): void
    {
        $client = $this->client();
        set_error_handler(static function (int $level, string $message): bool {
            throw new ErrorException($message);
        });
        try {
            $client->lock('two  blanks');
            self::fail('it has not warned');
        } catch (ErrorException $exception) {
            self::assertStringContainsString('"two blanks"', $exception->getMessage());
        } finally {
            restore_error_handler();
        }
        self::assertSame(0, $client->is_locked('two blanks'));
    }

    public function testFoldsNamesAsTheServerDoes(): void
    {
        [$client, $other] = [$this->client(), $this->client()];
        self::assertSame(1, $client->lock("\t a \t\x0b b\r\n"));
        $this->assertWarned('"a b"');
        self::assertSame(0, $other->lock('a b'));
        self::assertSame(1, $client->unlock('a b'));
        self::assertSame(1, $client->lock(5));
        self::assertSame(0, $other->lock('5'));
        self::assertSame(0, $client->lock(str_repeat('x', 5000)), 'longer than the server allows a line to be');
        self::assertSame(0, $client->lock(str_repeat('x', 3000000)), 'longer than all buffers');
        self::assertSame(1, $client->is_locked('5'));
    }

    public function testNoCallSucceedsAfterTheServerIsGone(): void
    {
        $client = $this->client();
        self::assertSame(1, $client->lock('held'));
        self::assertSame('', $client->error());
        $this->server->restart();
        self::assertSame(0, $client->lock('other'));
        $this->assertWarned('all its locks are lost');
        self::assertStringContainsString('has ended the connection', $client->error());
        foreach (['lock' => 0, 'unlock' => 0, 'is_locked' => true] as $method => $answer) {
            self::assertSame($answer, $client->$method('held'), "$method has connected again");
            self::assertSame($answer, $client->$method('held', true), "$method has connected again");
        }
        $this->assertNotWarned();
        self::assertSame(1, $this->client()->lock('held'));
    }

    public function testAnInvalidReplyLosesTheLocks(): void
    {
        $lies = ['1 Got Lock', "Got Lock\r\n", "\r\n", '1', "one Got Lock\r\n", "-1 Got Lock\r\n", "1Got Lock\r\n"];
        $lies[] = "0 Refused: too many connections\r\n";
        $lies[] = '1 ' . str_repeat('x', 10000) . "\r\n";
        $this->iniSet('default_socket_timeout', '1');
        foreach ($lies as $lie) {
            $fake = FakeServer::ofLines(["1 Got Lock\r\n", $lie]);
            $client = new lockc('127.0.0.1', $fake->port);
            self::assertSame(1, $client->lock('a'));
            self::assertSame(0, $client->lock('b'), $lie);
            $this->assertWarned('all its locks are lost');
            self::assertSame(0, $client->lock('a'));
        }
    }

    public function testReconnectsIfNoLockWasHeld(): void
    {
        $client = $this->client();
        self::assertSame(1, $client->lock('a'));
        self::assertSame(1, $client->lock('s', true));
        self::assertSame(1, $client->unlock('a'));
        self::assertSame(1, $client->unlock('s', true));
        $this->server->restart();
        self::assertSame(1, $client->lock('a'));
        self::assertSame(0, $this->client()->lock('a'));
    }

    public function testWarnsIfItCannotConnect(): void
    {
        $client = $this->client();
        self::assertSame(0, $client->is_locked('a'));
        $this->server->kill();
        for ($time = 0; $time < 2; $time++) {
            self::assertSame(0, $client->lock('a'));
            $this->assertWarned('cannot connect to tcp://127.0.0.1:');
        }
    }

    public function testWarnsWithTheServersReasonForRefusingIt(): void
    {
        $this->server = new Server(['--connections-max', '1']);
        [$first, $second] = [$this->client(), $this->client()];
        self::assertSame(1, $first->lock('a'));
        self::assertTrue($second->is_locked('b'), 'without an answer the lock may be held');
        $this->assertWarned('lockc: ');
        unset($first);
        Deadline::until('the server accepts another connection', function () use ($second): bool {
            if ($second->lock('a') === 1) {
                return true;
            }
            $this->assertWarned('lockc: ');
            return false;
        });
    }

    public function testNamesTheProtocolOfAWrongPort(): void
    {
        $client = new lockc('127.0.0.1', $this->server->port(), 20);
        self::assertSame(0, $client->lock('a'));
        $wanted = 'this class needs a port with the text protocol of lockd (2626) or of glockd (9999)';
        $this->assertWarned("\"0 Refused: this port speaks message, not text\": $wanted");
        foreach (
            [
                "\x15\x03\x03\0\x02\x02\x46" => 'TLS there, which this class does not: ',
                "HTTP/1.1 400 Bad Request\r\n\r\n" => 'HTTP there ("HTTP/1.1 400 Bad Request"): ',
                FakeServer::frame(['error' => 'no message']) => 'the message protocol there: ',
            ] as $bytes => $what
        ) {
            $fake = new FakeServer(static function ($connection) use ($bytes): void {
                fgets($connection);
                fwrite($connection, $bytes);
            });
            $client = new lockc('127.0.0.1', $fake->port, 20);
            self::assertTrue($client->is_locked('a'));
            $this->assertWarned($what . $wanted);
        }
    }

    public function testSuggestsAWrongPortIfTheServerAnswersNothing(): void
    {
        $silent = new FakeServer(static function ($connection): void {
            stream_get_contents($connection);
        });
        $this->iniSet('default_socket_timeout', '1');
        $client = new lockc('127.0.0.1', $silent->port, 20);
        self::assertSame(0, $client->lock('a'));
        $this->assertWarned('no reply within 1 seconds: the server hangs, or speaks another protocol there: ');
    }

    public function testAReplyThatIsTooLateLosesTheLocks(): void
    {
        $this->iniSet('default_socket_timeout', '1');
        [$client, $idle] = [$this->client(), $this->client()];
        self::assertSame(1, $client->lock('held'));
        self::assertSame(0, $idle->is_locked('late'));
        $this->server->pause();
        self::assertSame(0, $client->lock('late'));
        $this->assertWarned('no reply within 1 seconds; all its locks are lost');
        self::assertSame(0, $idle->lock('late'));
        $this->assertWarned('no reply within 1 seconds');
        $this->server->resume();
        self::assertSame(0, $client->lock('held'));
        $this->assertBecomesFree('held');
        $this->assertBecomesFree('late');
    }

    public function testAnUnexpectedReplyLosesTheLocks(): void
    {
        $fake = FakeServer::ofLines(["1 Got Lock\r\n1 Got Lock\r\n"]);
        $client = new lockc('127.0.0.1', $fake->port, 5);
        self::assertSame(0, $client->lock('a'));
        $this->assertWarned('unexpected: 1 Got Lock');
    }

    public function testALateReplyIsConfirmedWithAnotherRequest(): void
    {
        $log = $this->server->directory() . '/requests';
        $fake = new FakeServer(static function ($connection) use ($log): void {
            while (($line = fgets($connection)) !== false) {
                file_put_contents($log, $line, FILE_APPEND);
                usleep($line === "g slow\n" ? 200_000 : 0);
                fwrite($connection, "1 Got Lock\r\n");
            }
        });
        $client = new lockc('127.0.0.1', $fake->port);
        $proofLasts = new ReflectionProperty(lockc::class, 'proofLasts');
        $proofLasts->setAccessible(true);
        $proofLasts->setValue($client, 0.1);
        self::assertSame(1, $client->lock('slow'));
        self::assertStringStartsWith("g slow\ni slow\n", (string) file_get_contents($log));
    }

    public function testReadsRepliesThatArriveInPieces(): void
    {
        $fake = new FakeServer(static function ($connection): void {
            while (fgets($connection) !== false) {
                foreach (str_split("12 Shared Lock Get Success: a\r\n", 3) as $piece) {
                    fwrite($connection, $piece);
                    usleep(1000);
                }
            }
        });
        $client = new lockc('127.0.0.1', $fake->port, 20);
        self::assertSame(12, $client->lock('a', true));
        self::assertSame(12, $client->lock('b', true));
    }

    public function testWarningsMayBecomeExceptions(): void
    {
        $client = $this->client();
        self::assertSame(1, $client->lock('held'));
        $this->server->restart();
        set_error_handler(static function (int $level, string $message): bool {
            throw new ErrorException($message);
        });
        try {
            $client->lock('held');
            self::fail('it has not warned');
        } catch (ErrorException $exception) {
            self::assertStringContainsString('all its locks are lost', $exception->getMessage());
            self::assertSame(0, $client->lock('held'));
        } finally {
            restore_error_handler();
        }
    }

    public function testAHandlersExceptionLeavesNoReplyForTheNextRequest(): void
    {
        $test = getmypid();
        $fake = new FakeServer(static function ($connection) use ($test): void {
            while (($line = fgets($connection)) !== false) {
                if ($line === "g free\n") {
                    // Sometimes the signal arrives between the request and the wait for the reply.
                    posix_kill($test, SIGUSR1);
                    usleep(1000);
                }
                @fwrite($connection, $line === "g free\n" ? "1 Got Lock\r\n" : "0 Cannot Get Lock\r\n");
            }
        });
        pcntl_signal(SIGUSR1, static fn () => throw new ErrorException('a handler'));
        pcntl_async_signals(true);
        try {
            for ($time = 0; $time < 50; $time++) {
                $client = new lockc('127.0.0.1', $fake->port, 20);
                try {
                    $client->lock('free');
                    self::fail('the handler has not run');
                } catch (ErrorException) {
                    self::assertTrue(pcntl_async_signals());
                    self::assertSame(0, $client->lock('busy'), "got the previous request's reply, in round $time");
                }
            }
        } finally {
            pcntl_async_signals(false);
            pcntl_signal(SIGUSR1, SIG_DFL);
        }
    }

    public function testAScriptTimeoutDuringARequestEndsTheConnection(): void
    {
        $fake = new FakeServer(static function ($connection): void {
            while (($line = fgets($connection)) !== false) {
                if (preg_match('/^g free (\d+)$/', $line, $parts)) {
                    posix_kill((int) $parts[1], SIGPROF);
                    usleep(1000);
                }
                @fwrite($connection, isset($parts[1]) ? "1 Got Lock\r\n" : "0 Cannot Get Lock\r\n");
            }
        });
        $script = <<<'PHP'
            <?php
            require $argv[1];
            set_time_limit(600);
            $client = new lockc('127.0.0.1', $argv[2]);
            register_shutdown_function(fn () => print($client->lock('busy') ? 'locked' : 'refused'));
            $client->lock('free ' . getmypid());
            PHP;
        for ($time = 0; $time < 10; $time++) {
            $output = $this->runScript($script, self::COMPAT . 'lockc.php', [(string) $fake->port]);
            $said = (string) stream_get_contents($output);
            self::assertMatchesRegularExpression('/Maximum execution time .*refused$/s', $said);
        }
    }

    public function testAForkedChildCannotUseTheConnection(): void
    {
        $client = $this->client();
        self::assertSame(1, $client->lock('held'));
        $outcome = $this->inChild(function () use (&$client): array {
            $answers = [$client->lock('other'), $client->unlock('held'), $client->is_locked('held')];
            $error = $client->error();
            $client = null;
            $own = $this->client();
            return [$answers, $error, $own->lock('held'), $own->lock('other')];
        });
        self::assertSame([0, 0, true], $outcome[0]);
        self::assertStringContainsString('parent', $outcome[1]);
        self::assertSame([0, 1], [$outcome[2], $outcome[3]]);
        $this->inChild(function () use (&$client): void {
            $client = null;
        });
        self::assertSame(0, $this->client()->lock('held'), 'the child has released it');
        self::assertSame(1, $client->unlock('held'));
    }
}
