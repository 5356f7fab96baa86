<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

use ErrorException;
use lockc;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;

require_once __DIR__ . '/../../compat/lockc.php';

final class LockcTest extends CompatTestCase
{
    private Server $server;

    protected function setUp(): void
    {
        parent::setUp();
        $this->server = new Server();
    }

    protected function tearDown(): void
    {
        unset($this->server);
        parent::tearDown();
    }

    private function client(float $timeout = 20, string $protocol = 'lockd'): lockc
    {
        return new lockc('127.0.0.1', $this->server->port($protocol), $timeout);
    }

    /** That somebody else gets this lock, at the latest when the server has noticed that its holder has gone. */
    private function assertBecomesFree(string $name): void
    {
        $other = $this->client();
        Deadline::until("$name is free", fn (): bool => $other->lock($name));
        self::assertTrue($other->unlock($name));
    }

    /** @return iterable<string, array{string}> */
    public function protocols(): iterable
    {
        return ['lockd' => ['lockd'], 'glockd' => ['glockd']];
    }

    /** @dataProvider protocols */
    public function testOldScriptsNoticeNoDifference(string $protocol): void
    {
        $this->assertSameTranscript('lockc_script.php', 'lockc.php', $this->server->port($protocol));
    }

    /** @dataProvider protocols */
    public function testOldAndNewClassesExcludeEachOther(string $protocol): void
    {
        $port = $this->server->port($protocol);
        $this->assertNothingLost('lockc_script.php', 'lockc.php', $this->server, $port);
    }

    /** @dataProvider protocols */
    public function testTellsYesFromNo(string $protocol): void
    {
        [$one, $two] = [$this->client(20, $protocol), $this->client(20, $protocol)];
        self::assertFalse($one->is_locked('a'));
        self::assertTrue($one->lock('a'));
        self::assertFalse($two->lock('a'));
        self::assertFalse($two->unlock('a'));
        self::assertTrue($two->check('a'));
        self::assertTrue($one->release('a'));
        self::assertFalse($one->unlock('a'));
        self::assertSame(1, $one->lock('s', true));
        self::assertSame(2, $two->get('s', true));
        self::assertSame(2, $two->inspect('s', true));
        self::assertTrue($one->unlock('s', true));
        self::assertTrue($two->unlock('s', true));
        self::assertSame(0, $two->is_locked('s', true));
    }

    public function testAcceptsTheWaysToNameAServer(): void
    {
        $socket = $this->server->directory() . '/text.sock';
        $server = new Server(['--listen', "lockd+unix:$socket", '--listen', 'glockd://[::1]:0']);
        // The server tells its addresses one by one, and these last.
        Deadline::until('it listens everywhere', fn (): bool => str_contains($server->log(), 'glockd://[::1]'));
        foreach (["unix:$socket", "unix://$socket"] as $host) {
            self::assertTrue((new lockc($host))->lock($host), $host);
        }
        preg_match('#glockd://\[::1\]:(\d+)#', $server->log(), $port);
        self::assertTrue((new lockc('::1', $port[1]))->lock('::1'));
        self::assertTrue((new lockc('[::1]', $port[1]))->lock('[::1]'));
        foreach (['localhost', 'tcp://127.0.0.1'] as $host) {
            self::assertTrue((new lockc($host, (string) $server->port('lockd')))->lock($host), $host);
        }
    }

    public function testRefusesNamesThatWouldBeCommands(): void
    {
        [$client, $other] = [$this->client(), $this->client()];
        self::assertTrue($client->lock('a'));
        self::assertFalse($client->lock("b\nr a"));
        $this->assertWarned('newline');
        self::assertFalse($client->lock("b\0c"));
        $this->assertWarned('newline or a NUL');
        self::assertFalse($client->lock(['b']));
        $this->assertWarned('must be a string');
        self::assertFalse($client->lock(new \stdClass()));
        $this->assertWarned('must be a string');
        self::assertFalse($other->lock('a'));
        self::assertFalse($other->is_locked('b'));
    }

    public function testTakesNamesAsTheServerDoes(): void
    {
        [$client, $other] = [$this->client(), $this->client()];
        self::assertTrue($client->lock("\t a \t\x0b b\r\n"));
        self::assertFalse($other->lock('a b'));
        self::assertTrue($client->unlock('a b'));
        self::assertTrue($client->lock(5));
        self::assertFalse($other->lock('5'));
        self::assertFalse($client->lock(str_repeat('x', 5000)), 'longer than a line may be');
        self::assertFalse($client->lock(str_repeat('x', 3000000)), 'longer than all buffers');
        self::assertTrue($client->is_locked('5'));
    }

    public function testIsNeverAYesOnceTheServerIsGone(): void
    {
        $client = $this->client();
        self::assertTrue($client->lock('held'));
        self::assertSame('', $client->error());
        $this->server->restart();
        self::assertFalse($client->lock('other'));
        $this->assertWarned('all its locks are lost');
        self::assertStringContainsString('has ended the connection', $client->error());
        foreach (['lock', 'unlock', 'is_locked'] as $method) {
            self::assertFalse($client->$method('held'), "$method has connected again");
            self::assertFalse($client->$method('held', true), "$method has connected again");
        }
        $this->assertNotWarned();
        self::assertTrue($this->client()->lock('held'));
    }

    public function testIsLostWithTheReplyToo(): void
    {
        $lies = ['1 Got Lock', "Got Lock\r\n", "\r\n", '1', "one Got Lock\r\n", "-1 Got Lock\r\n", "1Got Lock\r\n"];
        $lies[] = "0 Refused: too many connections\r\n";
        $lies[] = '1 ' . str_repeat('x', 10000) . "\r\n";
        foreach ($lies as $lie) {
            $fake = FakeServer::ofLines(["1 Got Lock\r\n", $lie]);
            $client = new lockc('127.0.0.1', $fake->port, 0.3);
            self::assertTrue($client->lock('a'));
            self::assertFalse($client->lock('b'), $lie);
            $this->assertWarned('all its locks are lost');
            self::assertFalse($client->lock('a'));
        }
    }

    public function testConnectsAgainWhenItHeldNothing(): void
    {
        $client = $this->client();
        self::assertTrue($client->lock('a'));
        self::assertSame(1, $client->lock('s', true));
        self::assertTrue($client->unlock('a'));
        self::assertTrue($client->unlock('s', true));
        $this->server->restart();
        self::assertTrue($client->lock('a'));
        self::assertFalse($this->client()->lock('a'));
    }

    public function testSaysThatThereIsNoServer(): void
    {
        $client = $this->client();
        self::assertFalse($client->is_locked('a'));
        $this->server->kill();
        for ($time = 0; $time < 2; $time++) {
            self::assertFalse($client->lock('a'));
            $this->assertWarned('cannot connect to tcp://127.0.0.1:');
        }
    }

    public function testSaysWhyItIsTurnedAway(): void
    {
        $this->server = new Server(['--connections-max', '1']);
        [$first, $second] = [$this->client(), $this->client()];
        self::assertTrue($first->lock('a'));
        self::assertFalse($second->is_locked('a'));
        $this->assertWarned('lockc: ');
        unset($first);
        Deadline::until('there is room', function () use ($second): bool {
            if ($second->lock('a')) {
                return true;
            }
            $this->assertWarned('lockc: ');
            return false;
        });
    }

    public function testATimeOutIsALoss(): void
    {
        [$client, $idle] = [$this->client(0.3), $this->client(0.3)];
        self::assertTrue($client->lock('held'));
        self::assertFalse($idle->is_locked('late'));
        $this->server->pause();
        self::assertFalse($client->lock('late'));
        $this->assertWarned('no reply within 0.3 seconds; all its locks are lost');
        self::assertFalse($idle->lock('late'));
        $this->assertWarned('no reply within 0.3 seconds');
        $this->server->resume();
        self::assertFalse($client->lock('held'));
        $this->assertBecomesFree('held');
        $this->assertBecomesFree('late');
    }

    public function testAReplyToNothingIsALoss(): void
    {
        $fake = FakeServer::ofLines(["1 Got Lock\r\n1 Got Lock\r\n"]);
        $client = new lockc('127.0.0.1', $fake->port, 5);
        self::assertTrue($client->lock('a'));
        self::assertFalse($client->lock('b'));
        $this->assertWarned('unexpected: 1 Got Lock; all its locks are lost');
    }

    public function testReadsRepliesInPieces(): void
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
        self::assertTrue($client->lock('held'));
        $this->server->restart();
        set_error_handler(static function (int $level, string $message): bool {
            throw new ErrorException($message);
        });
        try {
            $client->lock('held');
            self::fail('it has not warned');
        } catch (ErrorException $exception) {
            self::assertStringContainsString('all its locks are lost', $exception->getMessage());
            self::assertFalse($client->lock('held'));
        } finally {
            restore_error_handler();
        }
    }

    public function testAnExceptionOfASignalHandlerLeavesNoReplyToTheNextRequest(): void
    {
        $test = getmypid();
        $fake = new FakeServer(static function ($connection) use ($test): void {
            while (($line = fgets($connection)) !== false) {
                if ($line === "g free\n") {
                    // Now and then it arrives between the request and the wait for the reply.
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
                    self::assertFalse($client->lock('busy'), "the reply to the request before, in round $time");
                }
            }
        } finally {
            pcntl_async_signals(false);
            pcntl_signal(SIGUSR1, SIG_DFL);
        }
    }

    public function testARequestThatTimeWasUpForCostsTheConnection(): void
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

    public function testAChildHasNoPartInIt(): void
    {
        $client = $this->client();
        self::assertTrue($client->lock('held'));
        $outcome = $this->inChild(function () use (&$client): array {
            $answers = [$client->lock('other'), $client->unlock('held'), $client->is_locked('held')];
            $error = $client->error();
            $client = null;
            $own = $this->client();
            return [$answers, $error, $own->lock('held'), $own->lock('other')];
        });
        self::assertSame([false, false, false], $outcome[0]);
        self::assertStringContainsString('parent', $outcome[1]);
        self::assertSame([false, true], [$outcome[2], $outcome[3]]);
        $this->inChild(function () use (&$client): void {
            $client = null;
        });
        self::assertFalse($this->client()->lock('held'), 'the child has released it');
        self::assertTrue($client->unlock('held'));
    }

    public function testAProgramInTheBackgroundDoesNotKeepTheLock(): void
    {
        $client = $this->client();
        self::assertTrue($client->lock('held'));
        $this->startInBackground();
        unset($client);
        $this->assertBecomesFree('held');
    }

    public function testNorAfterAScriptThatRanOutOfMemory(): void
    {
        $script = <<<'PHP'
            <?php
            require $argv[1];
            $client = new lockc('127.0.0.1', $argv[2]);
            register_shutdown_function(function () use ($client) {
                echo $client->is_locked('held') ? 'still locked, ' : 'lost, ';
            });
            echo $client->lock('held') ? 'locked ' : 'not locked ';
            $null = ['file', '/dev/null', 'w'];
            $process = proc_open(['sleep', '600'], [['file', '/dev/null', 'r'], $null, $null], $pipes);
            echo proc_get_status($process)['pid'], ' ';
            ini_set('memory_limit', '4M');
            str_repeat('x', 100000000);
            PHP;
        $output = $this->runScript($script, self::COMPAT . 'lockc.php', [(string) $this->server->port('lockd')]);
        $said = stream_get_contents($output);
        self::assertSame(1, preg_match('/^locked (\d+) .*still locked, $/s', $said, $parts), $said);
        try {
            $this->assertBecomesFree('held');
            self::assertFileExists("/proc/$parts[1]/fd", 'the program has not lived as long');
        } finally {
            posix_kill((int) $parts[1], SIGKILL);
        }
    }
}
