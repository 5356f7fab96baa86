<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

use Lockd\Tests\Support\Deadline;
use LogicException;
use pkLockClient;

require_once __DIR__ . '/../../compat/pkLockClient.php';

/** What may happen while `pkLockClient` waits: signals, and the loss of the server. */
final class PkLockClientWaitsTest extends CompatTestCase
{
    private const AT_ONCE = ['timeLimit' => 0];

    /** The process that sends a signal; 0: there is none. */
    private int $signaller = 0;

    protected function tearDown(): void
    {
        pcntl_async_signals(false);
        if ($this->signaller > 0) {
            posix_kill($this->signaller, SIGKILL);
            pcntl_waitpid($this->signaller, $status);
        }
        pcntl_signal(SIGUSR1, SIG_DFL);
        parent::tearDown();
    }

    private function client(?int $port = null): pkLockClient
    {
        return new pkLockClient(['host' => '127.0.0.1', 'port' => $port ?? $this->server->port()]);
    }

    private function assertBecomesFree(string $name): void
    {
        self::assertTrue($this->client()->lock($name), "$name does not become free");
    }

    /** Sends a signal to this process as soon as it waits for the lock. */
    private function signalWhenWaitedFor(string $name): void
    {
        [$port, $test] = [$this->server->port(), getmypid()];
        $this->signaller = pcntl_fork();
        if ($this->signaller === 0) {
            try {
                $observer = $this->client($port);
                Deadline::until("$name has a waiter", static function () use ($observer, $name): bool {
                    return $observer->rpc('inspect', ['lockName' => $name])['waiters'] > 0;
                });
                posix_kill($test, SIGUSR1);
            } finally {
                posix_kill(getmypid(), SIGKILL);
            }
        }
    }

    public function testLockFailsIfTheServerIsLostDuringTheWait(): void
    {
        [$holder, $client] = [$this->client(), $this->client()];
        self::assertTrue($holder->lock('a'));
        pcntl_signal(SIGUSR1, fn () => $this->server->kill());
        $this->signalWhenWaitedFor('a');
        self::assertFalse($client->lock('a'));
        $this->assertWarned('has ended the connection');
        self::assertFalse($client->lock('a'));
        $this->assertWarned('cannot connect');
    }

    /** @return iterable<string, array{bool}> */
    public function asynchronousOrNot(): iterable
    {
        return ['synchronous' => [false], 'asynchronous' => [true]];
    }

    /** @dataProvider asynchronousOrNot */
    public function testSignalHandlersRunDuringTheWait(bool $asynchronous): void
    {
        [$holder, $client] = [$this->client(), $this->client()];
        self::assertTrue($holder->lock('a'));
        pcntl_async_signals($asynchronous);
        pcntl_signal(SIGUSR1, static fn () => $holder->unlock('a'));
        $this->signalWhenWaitedFor('a');
        self::assertTrue($client->lock('a'));
        self::assertSame($asynchronous, pcntl_async_signals());
    }

    /** @dataProvider asynchronousOrNot */
    public function testAHandlerThatThrowsEndsTheWait(bool $asynchronous): void
    {
        [$holder, $client, $other] = [$this->client(), $this->client(), $this->client()];
        self::assertTrue($holder->lock('a'));
        self::assertTrue($client->lock('held'));
        pcntl_async_signals($asynchronous);
        pcntl_signal(SIGUSR1, static function (): void {
            throw new LogicException('enough');
        });
        $this->signalWhenWaitedFor('a');
        try {
            $client->lock('a', ['timeLimit' => false]);
            self::fail('the exception has got lost');
        } catch (LogicException $exception) {
            self::assertSame('enough', $exception->getMessage());
        }
        self::assertTrue($holder->unlock('a'));
        self::assertTrue($other->lock('a'), 'the request is still in the queue');
        self::assertFalse($other->lock('held', self::AT_ONCE));
        self::assertFalse($client->lock('a', self::AT_ONCE));
        self::assertTrue($client->unlock('held'));
    }

    public function testAHandlerThatThrowsEndsTheWaitOfACommand(): void
    {
        [$holder, $client] = [$this->client(), $this->client()];
        self::assertTrue($holder->lock('a'));
        pcntl_signal(SIGUSR1, static function (): void {
            throw new LogicException('enough');
        });
        $this->signalWhenWaitedFor('a');
        try {
            $client->rpc('lock', ['lockName' => 'a']);
            self::fail('the exception has got lost');
        } catch (LogicException $exception) {
            $this->assertWarned('does not answer to lock; all its locks are lost');
        }
        self::assertTrue($holder->unlock('a'));
        $this->assertBecomesFree('a');
    }

    public function testWithdrawingARequestDoesNotReleaseAHeldLock(): void
    {
        $client = $this->client();
        self::assertTrue($client->lock('held'));
        $this->server->pause();
        pcntl_signal(SIGALRM, static function (): void {
            throw new LogicException('enough');
        });
        pcntl_alarm(1);
        try {
            $client->lock('held');
            self::fail('the exception has got lost');
        } catch (LogicException $exception) {
            $this->assertWarned('the server does not answer; all its locks are lost');
        } finally {
            pcntl_alarm(0);
            pcntl_signal(SIGALRM, SIG_DFL);
            $this->server->resume();
        }
        self::assertFalse($client->lock('held'));
    }

    public function testAHandlerCannotUseTheWaitingObject(): void
    {
        [$holder, $client] = [$this->client(), $this->client()];
        self::assertTrue($holder->lock('a'));
        $nested = null;
        pcntl_signal(SIGUSR1, static function () use ($holder, $client, &$nested): void {
            $nested = $client->lock('b');
            $holder->unlock('a');
        });
        $this->signalWhenWaitedFor('a');
        self::assertTrue($client->lock('a'));
        self::assertFalse($nested);
        $this->assertWarned('signal handler');
        self::assertTrue($client->lock('b'));
    }
}
