<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Lock;
use Lockd\Message\MessageClient;
use Lockd\SessionState;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\FakePeer;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Meanwhile;
use Lockd\Tests\Support\ResumingServer;
use PHPUnit\Framework\TestCase;
use RuntimeException;

/** Sessions that resume, with a server that does what each test needs. */
final class ResumeTest extends TestCase
{
    /** With this dead-peer timeout, in seconds, a session is in doubt for 2.5 s, the minimum. */
    private const SHORT = 0;

    /** In seconds, for what must not fail because a machine is busy. */
    private const LONG = 25.0;

    /** @return array{Client, Lock} a client that holds the lock `held`, with the token 41 */
    private static function holder(ResumingServer $server, float $timeout = 30.0): array
    {
        $client = Client::connect($server->url, 'me', $timeout);
        self::assertTrue($client->isResumable());
        return [$client, self::held($client->acquire('held'))];
    }

    private static function held(?Lock $lock): Lock
    {
        self::assertNotNull($lock);
        return $lock;
    }

    /** @param class-string<LockdException> $class */
    private static function assertThrows(string $class, callable $call): LockdException
    {
        try {
            $result = $call();
        } catch (LockdException $e) {
            self::assertInstanceOf($class, $e);
            return $e;
        }
        self::fail("$class was not thrown, but returned: " . var_export($result, true));
    }

    /** The requests of a client that says hello and acquires `held`. */
    private static function first(callable $accept, int $deadPeerTimeout = FakePeer::DEAD_PEER_TIMEOUT): FakePeer
    {
        $peer = $accept();
        $peer->hello($deadPeerTimeout);
        $peer->receive();
        $peer->grant(41);
        return $peer;
    }

    /** Ends a connection abruptly, when the test says so, and tells it. */
    private static function reset(FakePeer $peer, callable $say, callable $pause): void
    {
        $pause();
        $peer->reset();
        $say('reset');
    }

    /** Lets the server end the connection. */
    private static function letReset(ResumingServer $server): void
    {
        $server->goOn();
        self::assertSame('reset', $server->hear());
    }

    /** Lets the server end the connection, and waits until the session is certain. */
    private static function stateAfterReset(ResumingServer $server, Client $client): SessionState
    {
        self::letReset($server);
        return $client->waitCertain(self::LONG);
    }

    public function testAHolderResumesWithWhatItHolds(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = $accept();
            $hello = $peer->receive();
            $say(json_encode($hello['parameters']));
            $peer->accept($hello);
            $peer->receive();
            foreach ([41, 42, 43, 44] as $token) {
                $peer->grant($token);
            }
            for ($attempt = 0; $attempt < 2; $attempt++) {
                self::reset($peer, $say, $pause);
                $peer = $accept();
                $resume = $peer->receive();
                $peer->accept($resume, 8);
                $say("{$resume['command']} " . json_encode($resume['parameters']));
                $say(json_encode($peer->receive()['parameters']));
            }
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        $more = [
            $client->acquire('7', shared: true),
            $client->acquire("\xff", atMost: 4),
            $client->acquire('1', atMost: 1),
        ];
        self::assertSame(
            ['client' => 'lockd-php', 'version' => Client::VERSION, 'resumable' => true],
            json_decode($server->hear(), true),
        );
        self::assertSame(SessionState::Alive, self::stateAfterReset($server, $client));
        $locks = [
            ['lockName' => 'held', 'mode' => 'exclusive', 'token' => 41],
            ['lockName' => '7', 'mode' => 'shared', 'token' => 42],
            ['lockNameHex' => 'ff', 'limit' => 4, 'token' => 43],
            ['lockName' => '1', 'mode' => 'exclusive', 'token' => 44],
        ];
        $resume = ['session' => str_repeat('5e', 16), 'epoch' => 7, 'secret' => str_repeat('ab', 15) . '07',
            'deadPeerTimeout' => 25, 'attempt' => 1, 'locks' => $locks, 'client' => 'lockd-php',
            'version' => Client::VERSION];
        self::assertSame('resume ' . json_encode($resume), $server->hear());
        self::assertSame(['name' => 'me'], json_decode($server->hear(), true));
        self::assertSame(SessionState::Alive, self::stateAfterReset($server, $client));
        // The newer run has told a secret of its own, and each attempt has a number of its own.
        $resume = ['epoch' => 8, 'secret' => str_repeat('ab', 15) . '08', 'attempt' => 2] + $resume;
        self::assertEquals($resume, json_decode(substr($server->hear(), strlen('resume ')), true));
        self::assertSame(41, $lock->token());
        foreach ($more as $one) {
            self::assertSame(SessionState::Alive, $one?->state());
        }
    }

    public function testInDoubtNoCallSaysYesAndNothingIsClosed(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $old = self::first($accept);
            $say('hangs');
            $peer = $accept();
            $resume = $peer->expect('resume');
            $pause();
            $say($old->isOpen() ? 'open' : 'not open');
            $peer->accept($resume);
            $say($old->awaitEnd());
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server, 2.0);
        self::assertSame('hangs', $server->hear());
        // The server does not answer in time.
        self::assertFalse($lock->isHeld());
        self::assertFalse($client->stands());
        self::assertSame([SessionState::InDoubt, SessionState::InDoubt], [$client->state(), $lock->state()]);
        self::assertSame(SessionState::InDoubt, $client->waitCertain(0.1));
        $calls = [
            static fn () => $client->acquire('other'),
            static fn () => $client->acquire('other', 0.1),
            static fn () => $client->acquire('held'),
            static fn () => $client->inspect('held'),
            static fn () => [...$client->list()],
            static fn () => $lock->share(),
            static fn () => $lock->convert(false, 0.1),
        ];
        foreach ($calls as $call) {
            $e = self::assertThrows(DoubtException::class, $call);
            self::assertNotInstanceOf(ConnectionLostException::class, $e);
        }
        $server->goOn();
        self::assertSame('open', $server->hear());
        self::assertSame(SessionState::Alive, $client->waitCertain(self::LONG));
        self::assertSame('reset', $server->hear());
        self::assertTrue($lock->isHeld());
    }

    /** @return iterable<string, array{array<mixed>, string}> */
    public static function verdicts(): iterable
    {
        yield 'ended' => [['status' => 'ended', 'reason' => 'the lock "held" went to others'], 'went to others'];
        yield 'an older server' => [['status' => 'unknown', 'command' => 'resume'], 'older'];
        yield 'a mistake of this client' => [['status' => 'invalid', 'reason' => 'no epoch'], 'no epoch'];
    }

    /**
     * @dataProvider verdicts
     * @param array<mixed> $verdict
     */
    public function testASessionThatTheServerHasEndedIsLostAndEndsWhenItsCallerKnows(array $verdict, string $why): void
    {
        $serve = static function (callable $accept, callable $say, callable $pause) use ($verdict): void {
            $peer = self::first($accept);
            self::reset($peer, $say, $pause);
            $peer = $accept();
            $peer->answer($peer->expect('resume'), $verdict);
            $pause();
            $say($peer->isOpen() ? 'open' : 'not open');
            $say($peer->awaitEnd());
        };
        $server = ResumingServer::start($serve);
        [$client, $lock] = self::holder($server);
        self::assertSame(SessionState::Lost, self::stateAfterReset($server, $client));
        self::assertSame([SessionState::Lost, SessionState::Lost, false], [$client->state(), $lock->state(),
            $lock->isHeld()]);
        $e = self::assertThrows(ConnectionLostException::class, static fn () => $client->acquire('other', self::LONG));
        self::assertStringContainsString($why, $e->getMessage());
        self::assertThrows(ConnectionLostException::class, static fn () => $lock->release());
        $server->goOn();
        self::assertSame('open', $server->hear());
        $client->close();
        self::assertSame('ended', $server->hear());
    }

    public function testARefusedAttemptIsFollowedByTheNext(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept);
            self::reset($peer, $say, $pause);
            $peer = $accept();
            $resume = $peer->expect('resume');
            $peer->answer($resume, ['status' => 'refused', 'reason' => 'it is stopping', 'cause' => 'stopping']);
            $say("{$resume['parameters']['attempt']} {$peer->awaitEnd()}");
            $peer = $accept();
            $peer->expect('resume');
            // No room.
            $peer->close();
            $accept()->reset();
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say((string) $resume['parameters']['attempt']);
            $peer->accept($resume);
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        self::assertSame(SessionState::Alive, self::stateAfterReset($server, $client));
        self::assertSame('1 reset', $server->hear());
        self::assertGreaterThanOrEqual(3, (int) $server->hear());
        self::assertTrue($lock->isHeld());
    }

    public function testAnAttemptWithoutAnAnswerIsGivenUpByAReset(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept);
            self::reset($peer, $say, $pause);
            $say($accept()->awaitEnd());
            $peer = $accept();
            $peer->accept($peer->expect('resume'));
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        self::assertSame(SessionState::Alive, self::stateAfterReset($server, $client));
        self::assertSame('reset', $server->hear());
        self::assertTrue($lock->isHeld());
    }

    /** The end of a Unix socket is the client's word, also if the server has not read anything yet. */
    public function testOverAUnixSocketAnAttemptWithoutAnAnswerStaysOpenInDoubt(): void
    {
        $path = sys_get_temp_dir() . '/lockd-php-' . bin2hex(random_bytes(6));
        try {
            $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
                $peer = self::first($accept);
                $pause();
                $peer->close();
                $say('reset');
                $silent = $accept();
                $peer = $accept();
                $resume = $peer->expect('resume');
                $say($silent->isOpen() ? 'open' : 'not open');
                $peer->accept($resume);
                $say($silent->awaitEnd());
                $peer->awaitEnd();
            }, $path);
            [$client, $lock] = self::holder($server);
            self::assertSame(SessionState::Alive, self::stateAfterReset($server, $client));
            self::assertSame('open', $server->hear());
            self::assertSame('ended', $server->hear());
            self::assertTrue($lock->isHeld());
        } finally {
            unlink($path);
        }
    }

    public function testAnAnswerAfterTheLimitChangesNothing(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept, self::SHORT);
            self::reset($peer, $say, $pause);
            $peer = $accept();
            $resume = $peer->expect('resume');
            $pause();
            $peer->accept($resume);
            $say('resumed');
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        self::letReset($server);
        self::assertSame(SessionState::InDoubt, $lock->state());
        // The program does something else until it is too late.
        $began = microtime(true);
        Deadline::until('the limit is over', static fn (): bool => microtime(true) - $began > 2.6);
        $server->goOn();
        self::assertSame('resumed', $server->hear());
        self::assertSame(SessionState::Lost, $lock->state());
        self::assertFalse($lock->isHeld());
        $e = self::assertThrows(ConnectionLostException::class, static fn () => $lock->release());
        self::assertStringContainsString('not resumed in time', $e->getMessage());
    }

    public function testTheLimitEndsAWait(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            self::reset(self::first($accept, self::SHORT), $say, $pause);
            $accept()->awaitEnd();
            $accept()->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        self::letReset($server);
        self::assertThrows(ConnectionLostException::class, static fn () => $client->acquire('other', null));
        self::assertSame(SessionState::Lost, $client->state());
    }

    public function testWhoHasNotAskedForLongHasLostAtOnce(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept, self::SHORT);
            $began = microtime(true);
            Deadline::until('the proof is old', static fn (): bool => microtime(true) - $began > 2.6);
            self::reset($peer, $say, $pause);
            $say($accept()->receive()['command']);
        });
        [$client, $lock] = self::holder($server);
        self::letReset($server);
        self::assertSame(SessionState::Lost, $lock->state());
        self::assertFalse($client->stands());
        // It has not even tried to resume.
        $next = stream_socket_client(substr($server->url, 0, -strlen('?resume')));
        self::assertIsResource($next);
        fwrite($next, FakeServer::frame(['command' => 'next']));
        self::assertSame('next', $server->hear());
    }

    /** A program may be stopped for any time: that its proof is old says nothing by itself. */
    public function testOnAStandingConnectionNothingIsInDoubt(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept, self::SHORT);
            $pause();
            $ping = $peer->receive();
            $say($ping['command']);
            $peer->answer($ping, ['status' => 'ok']);
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        $began = microtime(true);
        Deadline::until('the proof is old', static fn (): bool => microtime(true) - $began > 2.6);
        // It sends a ping, and does not wait for the answer.
        self::assertSame(SessionState::Alive, $lock->state());
        self::assertSame(SessionState::Alive, $client->state());
        $server->goOn();
        self::assertSame('ping', $server->hear());
        self::assertTrue($lock->isHeld());
    }

    public function testWithoutNeedNoPingIsSent(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = self::first($accept);
            $say($peer->receive()['command']);
        });
        [$client, $lock] = self::holder($server);
        self::assertSame(SessionState::Alive, $client->state());
        self::assertThrows(LockdException::class, static fn () => $client->inspect('held'));
        self::assertSame('inspect', $server->hear());
    }

    public function testAReleaseThatWasUnderWayHasSucceededIfTheSessionResumes(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = self::first($accept);
            $peer->grant(42);
            $peer->expect('unlock');
            $peer->reset();
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say(json_encode($resume['parameters']['locks']));
            $peer->accept($resume);
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        $other = $client->acquire('other');
        self::assertTrue($lock->release());
        self::assertSame('[{"lockName":"other","mode":"exclusive","token":42}]', $server->hear());
        self::assertSame([SessionState::Lost, SessionState::Alive], [$lock->state(), $other?->state()]);
    }

    public function testAReleaseThatWasUnderWayIsLostWithTheSession(): void
    {
        $server = ResumingServer::start(static function (callable $accept): void {
            $peer = self::first($accept);
            $peer->expect('unlock');
            $peer->reset();
            $peer = $accept();
            $peer->answer($peer->expect('resume'), ['status' => 'ended', 'reason' => 'too late']);
            $peer->awaitEnd();
        });
        [, $lock] = self::holder($server);
        self::assertThrows(ConnectionLostException::class, static fn () => $lock->release());
        self::assertFalse($lock->release());
    }

    public function testWhatIsGivenUpInDoubtIsReleasedFirstOfAll(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept);
            $peer->grant(42);
            self::reset($peer, $say, $pause);
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say(implode(' ', array_column($resume['parameters']['locks'], 'lockName')));
            $pause();
            $peer->answer($resume, ['status' => 'refused', 'reason' => 'not now']);
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say(implode(' ', array_column($resume['parameters']['locks'], 'lockName')));
            $pause();
            $peer->accept($resume);
            $unlock = $peer->expect('unlock');
            $say(json_encode($unlock['parameters']));
            self::reset($peer, $say, $pause);
            // Not confirmed: so the session is in doubt, although it holds nothing.
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say(json_encode($resume['parameters']['locks']));
            $peer->accept($resume);
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        $other = self::held($client->acquire('other'));
        self::letReset($server);
        self::assertSame(SessionState::InDoubt, $lock->state());
        Deadline::until('the resume is sent', static fn (): bool => $client->waitCertain(0.01) !== SessionState::Lost);
        self::assertSame('held other', $server->hear());
        $e = self::assertThrows(DoubtException::class, static fn () => $lock->release());
        self::assertFalse($e->wasUnderWay);
        $server->goOn();
        Deadline::until('the next attempt', static fn (): bool => $client->waitCertain(0.5) !== SessionState::Lost);
        self::assertSame('other', $server->hear());
        self::assertThrows(DoubtException::class, static fn () => $other->release());
        $server->goOn();
        self::assertSame(SessionState::Alive, $client->waitCertain(self::LONG));
        self::assertSame('{"lockNames":[{"lockName":"other"}]}', $server->hear());
        self::assertSame(SessionState::Alive, self::stateAfterReset($server, $client));
        self::assertSame('[]', $server->hear());
        self::assertSame([SessionState::Lost, false], [$other->state(), $other->release()]);
    }

    public function testAReleaseWhoseCallResumesTheSessionReleasesTheLock(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept);
            self::reset($peer, $say, $pause);
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say('asked');
            $pause();
            $peer->accept($resume);
            $say('answered');
            $peer->receive();
            $peer->answer($peer->expect('unlock'), ['status' => 'ok']);
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        self::letReset($server);
        self::assertSame(SessionState::InDoubt, $client->waitCertain(0.5));
        self::assertSame('asked', $server->hear());
        $server->goOn();
        self::assertSame('answered', $server->hear());
        self::assertTrue($lock->release());
    }

    public function testAWaitQueuesAgainWhenItsSessionHasResumed(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = self::first($accept);
            $say((string) ($peer->expect('lock')['parameters']['timeLimit'] <= 30.0));
            $peer->reset();
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say((string) json_encode($resume['parameters']['locks']));
            $peer->accept($resume);
            $peer->receive();
            $lock = $peer->expect('lock');
            $say("{$lock['parameters']['lockName']} " . ($lock['parameters']['timeLimit'] < 30.0 ? 'less' : 'more'));
            $peer->answer($lock, ['status' => 'ok', 'token' => 42]);
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        $other = self::held($client->acquire('other', 30.0));
        self::assertSame(['1', '[{"lockName":"held","mode":"exclusive","token":41}]', 'other less'], [$server->hear(),
            $server->hear(), $server->hear()]);
        self::assertSame([42, true, true], [$other->token(), $other->isHeld(), $lock->isHeld()]);
    }

    /** The request may have been granted just before: it is not claimed, so that the server frees it. */
    public function testATryWhoseConnectionEndsIsInDoubtAndHoldsNothing(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = self::first($accept);
            $peer->expect('lock');
            $peer->reset();
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say(implode(' ', array_column($resume['parameters']['locks'], 'lockName')));
            $peer->accept($resume);
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        $e = self::assertThrows(DoubtException::class, static fn () => $client->acquire('other'));
        self::assertTrue($e->wasUnderWay);
        self::assertSame(SessionState::Alive, $client->waitCertain(self::LONG));
        self::assertSame('held', $server->hear());
    }

    public function testAServerThatStopsHasNotAnsweredAWait(): void
    {
        $stopping = ['status' => 'refused', 'reason' => 'the server is stopping', 'cause' => 'stopping'];
        $server = ResumingServer::start(static function (callable $accept) use ($stopping): void {
            $peer = self::first($accept);
            $peer->answer($peer->expect('lock'), $stopping);
            $resuming = $accept();
            $resuming->accept($resuming->expect('resume'));
            $resuming->receive();
            $resuming->grant(42);
            $resuming->answer($resuming->expect('lock'), $stopping);
            $resuming->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        $other = self::held($client->acquire('other', 30.0));
        self::assertSame(42, $other->token());
        // A call that does not wait is told.
        $e = self::assertThrows(RefusedException::class, static fn () => $client->acquire('third'));
        self::assertSame('stopping', $e->cause);
    }

    public function testAConversionToMoreHoldersClaimsTheWeakerMode(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = self::first($accept);
            $peer->expect('convert');
            $peer->reset();
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say(json_encode($resume['parameters']['locks']));
            $peer->accept($resume);
            $peer->receive();
            $convert = $peer->expect('convert');
            $peer->answer($convert, ['status' => 'refused', 'reason' => 'no']);
            $peer->reset();
            $peer = $accept();
            $say(json_encode($peer->expect('resume')['parameters']['locks']));
        });
        [$client, $lock] = self::holder($server);
        $e = self::assertThrows(DoubtException::class, static fn () => $lock->convert(atMost: 4));
        self::assertTrue($e->wasUnderWay);
        // It may have four holders by now.
        self::assertSame([4, true, 41], [$lock->limit(), $lock->isShared(), $lock->token()]);
        self::assertSame(SessionState::Alive, $lock->waitCertain(self::LONG));
        self::assertSame('[{"lockName":"held","limit":4,"token":41}]', $server->hear());
        self::assertThrows(RefusedException::class, static fn () => $lock->share());
        self::assertSame(4, $lock->limit());
        Deadline::until('the resume is sent', static fn (): bool => $client->waitCertain(0.1) !== SessionState::Alive);
        self::assertSame('[{"lockName":"held","limit":4,"token":41}]', $server->hear());
    }

    public function testAConversionToFewerHoldersIsAskedForAgain(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = $accept();
            $peer->hello();
            $peer->receive();
            $peer->grant(41);
            $peer->expect('convert');
            $peer->reset();
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say(json_encode($resume['parameters']['locks']));
            $peer->accept($resume);
            $peer->receive();
            $peer->answer($peer->expect('convert'), ['status' => 'ok', 'token' => 42]);
            $peer->awaitEnd();
        });
        $client = Client::connect($server->url, 'me', 30.0);
        $lock = self::held($client->acquire('shared', shared: true));
        self::assertTrue($lock->makeExclusive(30.0));
        self::assertSame('[{"lockName":"shared","mode":"shared","token":41}]', $server->hear());
        self::assertSame([42, 1, true], [$lock->token(), $lock->limit(), $lock->isHeld()]);
    }

    public function testASessionThatHoldsNothingBeginsAnew(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = $accept();
            $peer->hello();
            $peer->receive();
            $peer->expect('lock');
            $peer->close();
            $accept()->close();
            $peer = $accept();
            $hello = $peer->expect('hello');
            $say(json_encode($hello['parameters']['resumable']));
            $peer->answer($hello, ['status' => 'refused', 'reason' => 'stopping', 'cause' => 'stopping']);
            $say($peer->awaitEnd());
            $peer = $accept();
            $peer->hello();
            $say($peer->receive()['command']);
            $peer->grant(41);
            $peer->awaitEnd();
        });
        $client = Client::connect($server->url, 'me', 30.0);
        $lock = self::held($client->acquire('waited for', 30.0));
        self::assertSame(['true', 'ended', 'identify'], [$server->hear(), $server->hear(), $server->hear()]);
        self::assertTrue($lock->isHeld());
    }

    public function testASessionThatHoldsNothingEndsItsOldConnection(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = $accept();
            $peer->hello();
            $say($peer->awaitEnd());
        });
        $client = Client::connect($server->url, null, 2.0);
        // The server does not answer in time.
        self::assertThrows(DoubtException::class, static fn () => $client->inspect('other'));
        self::assertSame('ended', $server->hear());
        self::assertSame(SessionState::InDoubt, $client->state());
    }

    public function testWhileNoServerAnswersASessionThatHoldsNothingIsInDoubt(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = $accept();
            $peer->hello(self::SHORT);
            $peer->receive();
            self::reset($peer, $say, $pause);
        });
        $client = Client::connect($server->url, 'me', 30.0);
        self::letReset($server);
        self::assertSame('done', $server->hear());
        self::assertThrows(DoubtException::class, static fn () => $client->acquire('other'));
        // For longer than a session that holds something could be in doubt.
        self::assertThrows(DoubtException::class, static fn () => $client->acquire('other', 2.6));
        self::assertSame(SessionState::InDoubt, $client->state());
    }

    /** @return iterable<string, array{array<mixed>|string, string}> */
    public static function refusals(): iterable
    {
        yield 'a secret' => [['status' => 'refused', 'reason' => 'a wrong secret'], 'a wrong secret'];
        yield 'no server of locks' => [['status' => 'unknown', 'command' => 'hello'], 'is not lockd'];
        yield 'another protocol' => ["HTTP/1.0 400 Bad Request\r\n\r\n", 'HTTP'];
    }

    /**
     * @dataProvider refusals
     * @param array<mixed>|string $refusal
     */
    public function testASessionThatHoldsNothingIsLostIfTheServerRefusesItForGood(
        array|string $refusal,
        string $why,
    ): void {
        $serve = static function (callable $accept, callable $say, callable $pause) use ($refusal): void {
            $peer = $accept();
            $peer->hello();
            $peer->receive();
            self::reset($peer, $say, $pause);
            $peer = $accept();
            $hello = $peer->expect('hello');
            is_string($refusal) ? $peer->send($refusal) : $peer->answer($hello, $refusal);
            $peer->close();
        };
        $server = ResumingServer::start($serve);
        $client = Client::connect($server->url, 'me', 30.0);
        self::assertSame(SessionState::Lost, self::stateAfterReset($server, $client));
        $e = self::assertThrows(ConnectionLostException::class, static fn () => $client->acquire('other', 30.0));
        self::assertStringContainsString($why, $e->getMessage());
    }

    public function testClosingInDoubtIsTheClientsWordOnAllItsConnections(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $old = self::first($accept);
            $say('hangs');
            $peer = $accept();
            $peer->expect('resume');
            $say('asked');
            $say("{$old->awaitEnd()} {$peer->awaitEnd()}");
        });
        [$client, $lock] = self::holder($server, 2.0);
        self::assertSame('hangs', $server->hear());
        self::assertFalse($lock->isHeld());
        self::assertSame(SessionState::InDoubt, $client->waitCertain(0.1));
        self::assertSame('asked', $server->hear());
        $client->close();
        self::assertSame('ended ended', $server->hear());
        self::assertSame(SessionState::Lost, $lock->state());
    }

    public function testAHandlerThatThrowsEndsAWaitInDoubt(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            self::reset(self::first($accept), $say, $pause);
            $peer = $accept();
            $resume = $peer->expect('resume');
            $pause();
            $peer->accept($resume);
            $peer->awaitEnd();
        });
        [$client, $lock] = self::holder($server);
        self::letReset($server);
        $meanwhile = Meanwhile::does(static fn () => throw new RuntimeException('enough'));
        try {
            $other = $client->acquire('other', 30.0);
            self::fail('the handler\'s exception is lost');
        } catch (RuntimeException $e) {
            self::assertSame('enough', $e->getMessage());
        }
        unset($meanwhile);
        $server->goOn();
        self::assertSame(SessionState::Alive, $lock->waitCertain(self::LONG));
    }

    public function testAnOlderServerIsAskedInVain(): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send): void {
            FakeServer::hello($receive, $send);
            $request = $receive();
            $send(FakeServer::frame(['id' => $request['id'], 'result' => ['status' => 'ok', 'token' => 7]]));
            $receive();
            posix_kill(getmypid(), SIGKILL);
        });
        $client = Client::connect($server->url, resume: true);
        self::assertFalse($client->isResumable());
        $lock = self::held($client->acquire('held'));
        self::assertThrows(ConnectionLostException::class, static fn () => $client->inspect('held'));
        self::assertSame([SessionState::Lost, SessionState::Lost], [$client->state(), $lock->waitCertain(30.0)]);
    }

    public function testTheOptionGoesBeforeTheAddress(): void
    {
        $server = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = $accept();
            $hello = $peer->expect('hello');
            $say(isset($hello['parameters']['resumable']) ? 'resumable' : 'as ever');
            $peer->accept($hello);
            $peer->awaitEnd();
        });
        self::assertFalse(Client::connect($server->url, resume: false)->isResumable());
        self::assertSame('as ever', $server->hear());
    }

    public function testSingleCommandsDoNotResume(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('?resume');
        MessageClient::connect('tcp://127.0.0.1:1?resume');
    }
}
