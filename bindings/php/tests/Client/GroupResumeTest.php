<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Closure;
use Lockd\Client;
use Lockd\Exception\DoubtException;
use Lockd\Lock;
use Lockd\SessionState;
use Lockd\Tests\Support\FakePeer;
use Lockd\Tests\Support\Nothing;
use Lockd\Tests\Support\ResumingServer;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Standby;
use PHPUnit\Framework\TestCase;

/** Sessions that resume at another place of their server. */
final class GroupResumeTest extends TestCase
{
    /** In seconds, for what must not fail because a machine is busy. */
    private const LONG = 25.0;

    private static function held(?Lock $lock): Lock
    {
        self::assertNotNull($lock);
        return $lock;
    }

    private static function group(string ...$places): string
    {
        return 'tcp://' . implode(',', $places) . '?resume';
    }

    /** The requests of a client that says hello and acquires `held`. */
    private static function first(callable $accept): FakePeer
    {
        $peer = $accept();
        $peer->hello();
        $peer->grant(41);
        return $peer;
    }

    /** A server that grants one lock, ends the connection when the test says so, and is gone then. */
    private static function thatGoes(): ResumingServer
    {
        return ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept);
            $pause();
            $peer->reset();
        });
    }

    /** A client that holds the lock `held`. */
    private static function holder(string $url, ?Lock &$lock): Client
    {
        $client = Client::connect($url, null, 30.0);
        self::assertTrue($client->isResumable());
        $lock = self::held($client->acquire('held'));
        return $client;
    }

    private static function letGo(ResumingServer $server): void
    {
        $server->goOn();
        self::assertSame('done', $server->hear());
    }

    public function testAHolderResumesWhereItsServerIsActiveNow(): void
    {
        $old = self::thatGoes();
        $standby = Standby::start();
        $new = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            // It is not active yet.
            $peer = $accept();
            $peer->answer($peer->expect('resume'), Standby::answer());
            $say($peer->awaitEnd());
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say((string) $resume['parameters']['attempt']);
            $peer->accept($resume, 8);
            $pause();
            $peer->reset();
            $say('reset');
            $peer = $accept();
            $resume = $peer->expect('resume');
            $say((string) $resume['parameters']['attempt']);
            $peer->accept($resume, 8);
            $peer->awaitEnd();
        });
        $client = self::holder(self::group($old->place(), $standby->place, $new->place()), $lock);
        self::letGo($old);
        self::assertSame(SessionState::Alive, $client->waitCertain(self::LONG));
        self::assertSame('reset', $new->hear());
        $attempts = (int) $new->hear();
        self::assertGreaterThanOrEqual(4, $attempts, 'the standby was asked in each round');
        self::assertSame([SessionState::Alive, 41], [$lock?->state(), $lock?->token()]);
        $new->goOn();
        self::assertSame('reset', $new->hear());
        self::assertSame(SessionState::Alive, $client->waitCertain(self::LONG));
        self::assertSame($attempts + 1, (int) $new->hear(), 'the place that was active last is asked first');
    }

    public function testAPlaceThatDoesNotAnswerLeavesTimeForTheOthers(): void
    {
        $old = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = self::first($accept);
            $pause();
            $peer->reset();
            $say('gone');
            $say($accept()->awaitEnd());
        });
        $new = ResumingServer::start(static function (callable $accept): void {
            $peer = $accept();
            $peer->accept($peer->expect('resume'), 8);
            $peer->awaitEnd();
        });
        $client = self::holder(self::group($old->place(), $new->place()), $lock);
        $old->goOn();
        self::assertSame('gone', $old->hear());
        self::assertTrue($lock?->isHeld(self::LONG));
        self::assertSame('reset', $old->hear());
        self::assertSame(SessionState::Alive, $client->state());
    }

    /** A server that reads no more from a holder, while its kernel acknowledges what is sent. */
    private static function thatHangs(): ResumingServer
    {
        return ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = $accept();
            $peer->hello(12);
            $peer->grant(41);
            while ($peer->receive()['command'] !== 'ping') {
                continue;
            }
            $say($peer->awaitEnd());
        });
    }

    public function testAHolderWhoseServerDoesNotAnswerLooksForItElsewhere(): void
    {
        $old = self::thatHangs();
        $new = ResumingServer::start(static function (callable $accept): void {
            $peer = $accept();
            $peer->accept($peer->expect('resume'), 8, 12);
            $peer->awaitEnd();
        });
        $client = self::holder(self::group($old->place(), $new->place()), $lock);
        while ($client->state() === SessionState::Alive) {
            usleep(10_000);
        }
        self::assertSame(SessionState::InDoubt, $client->state());
        self::assertTrue($lock?->isHeld(self::LONG));
        self::assertSame('reset', $old->hear());
        self::assertSame([SessionState::Alive, 41], [$client->state(), $lock?->token()]);
    }

    public function testAWaiterThatHoldsALockWaitsElsewhereIfItsServerDoesNotAnswer(): void
    {
        $old = self::thatHangs();
        $new = ResumingServer::start(static function (callable $accept): void {
            $peer = $accept();
            $peer->accept($peer->expect('resume'), 8, 12);
            $peer->grant(42);
            $peer->awaitEnd();
        });
        $client = self::holder(self::group($old->place(), $new->place()), $lock);
        $other = self::held($client->acquire('other', self::LONG));
        self::assertSame(42, $other->token());
        self::assertSame('reset', $old->hear());
        self::assertSame([SessionState::Alive, 41], [$lock?->state(), $lock?->token()]);
    }

    public function testInDoubtTheReasonNamesThePlace(): void
    {
        [$old, $standby] = [self::thatGoes(), Standby::start()];
        $client = self::holder(self::group($old->place(), $standby->place), $lock);
        self::letGo($old);
        $reasons = '';
        for ($number = 0; $number < 4; $number++) {
            try {
                $other = $client->acquire('other', 0.5);
                self::fail('it is not in doubt: ' . get_debug_type($other));
            } catch (DoubtException $e) {
                $reasons .= $e->getMessage();
            }
        }
        self::assertMatchesRegularExpression("#tcp://($standby->place: this server is|{$old->place()}: )#", $reasons);
        self::assertSame(SessionState::InDoubt, $lock?->state());
    }

    /** A server that is not active any more has ended its connections. If not, it ends no session. */
    public function testAHolderWhoseServerHasBecomeAStandbyResumesElsewhere(): void
    {
        $old = ResumingServer::start(static function (callable $accept, callable $say): void {
            $peer = self::first($accept);
            $peer->answer($peer->expect('inspect'), Standby::answer());
            $next = $accept();
            $next->answer($next->expect('resume'), Standby::answer());
            $say("{$next->awaitEnd()} {$peer->awaitEnd()}");
        });
        $new = ResumingServer::start(static function (callable $accept): void {
            $peer = $accept();
            $peer->accept($peer->expect('resume'), 8);
            $peer->awaitEnd();
        });
        $client = self::holder(self::group($old->place(), $new->place()), $lock);
        try {
            $client->inspect('held');
            self::fail('a standby has answered');
        } catch (DoubtException) {
            self::assertTrue($lock?->isHeld(self::LONG));
        }
        self::assertSame('reset reset', $old->hear());
    }

    public function testASessionThatHoldsNothingBeginsAnewElsewhere(): void
    {
        $old = ResumingServer::start(static function (callable $accept, callable $say, callable $pause): void {
            $peer = $accept();
            $peer->hello();
            $pause();
            $peer->reset();
        });
        $new = ResumingServer::start(static function (callable $accept): void {
            $peer = $accept();
            $peer->answer($peer->expect('hello'), Standby::answer());
            $peer->awaitEnd();
            $peer = $accept();
            $peer->hello();
            $peer->grant(42);
            $peer->awaitEnd();
        });
        $client = Client::connect(self::group($old->place(), $new->place()), null, 30.0);
        self::letGo($old);
        $lock = self::held($client->acquire('other', self::LONG));
        self::assertSame(42, $lock->token());
    }

    /** @return iterable<string, array{Closure, Closure}> what connects, and what also acquires */
    public static function transports(): iterable
    {
        yield 'streams' => [Client::connect(...), Client::connectAndAcquire(...)];
        yield 'FFI' => [Client::connectByFfi(...), Client::connectAndAcquireByFfi(...)];
    }

    /** @dataProvider transports */
    public function testAHolderKeepsItsLockWhenItsServerMoves(Closure $connect): void
    {
        [$server, $free, $standby] = [new Server(remembers: true), new Nothing(), Standby::start()];
        $client = $connect(self::group($server->place(), $standby->place, $free->place), null, 30.0);
        $lock = self::held($client->acquire('held'));
        $token = $lock->token();
        $server->stop();
        self::assertFalse($lock->isHeld());
        $server->startAt($free->place);
        self::assertTrue($lock->isHeld(self::LONG));
        self::assertSame($token, $lock->token());
        self::assertSame(1, Client::connect("tcp://$free->place")->inspect('held')->holders);
        self::assertTrue($lock->release());
    }

    /** @dataProvider transports */
    public function testAPatientClientFollowsItsServer(Closure $connect, Closure $connectAndAcquire): void
    {
        [$server, $free, $standby] = [new Server(), new Nothing(), Standby::start()];
        $url = "tcp://{$server->place()},$standby->place,$free->place";
        $other = $connect($server->tcp());
        $held = self::held($other->acquire('patient'));
        $moved = false;
        $onWait = static function () use ($server, $free, $held, &$moved): void {
            if (!$moved) {
                $moved = true;
                $server->kill();
                $server->startAt($free->place);
            }
        };
        $lock = self::held($connectAndAcquire($url, 'patient', 60.0, onWait: $onWait));
        self::assertTrue($moved && $lock->isHeld() && !$held->isHeld());
        self::assertSame(1, Client::connect("tcp://$free->place")->inspect('patient')->holders);
    }
}
