<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Closure;
use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Message\MessageClient;
use Lockd\Message\Rendezvous;
use Lockd\Tests\Support\FakeServer;
use Lockd\Tests\Support\Nothing;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Standby;
use Lockd\Tests\Support\Swallower;
use Lockd\WaitEvent;
use PHPUnit\Framework\TestCase;

/** One server at several places, of which one is active. */
final class GroupTest extends TestCase
{
    private static function failure(callable $connect): ConnectException
    {
        try {
            $connect();
        } catch (ConnectException $e) {
            return $e;
        }
        self::fail('there is a session');
    }

    /** @return iterable<string, array{Closure, Closure}> what connects, and what also acquires */
    public static function transports(): iterable
    {
        yield 'streams' => [Client::connect(...), Client::connectAndAcquire(...)];
        yield 'FFI' => [Client::connectByFfi(...), Client::connectAndAcquireByFfi(...)];
    }

    /** @dataProvider transports */
    public function testTheActiveServerIsFoundWhereverItIs(Closure $connect, Closure $connectAndAcquire): void
    {
        [$server, $standby, $nothing] = [new Server(), Standby::start('a.example.org:20934'), new Nothing()];
        $groups = [
            [$server->place(), $standby->place, $nothing->place],
            [$standby->place, $nothing->place, $server->place()],
            [$nothing->place, $standby->place, $server->place()],
        ];
        foreach ($groups as $group) {
            $client = $connect('tcp://' . implode(',', $group));
            $lock = $client->acquire('found');
            self::assertTrue($lock?->isHeld());
            self::assertTrue($lock->release());
        }
        $lock = $connectAndAcquire('tcp://' . implode(' , ', $groups[1]), 'found', 0.0);
        self::assertTrue($lock?->isHeld());
    }

    /** @dataProvider transports */
    public function testAPlaceThatDoesNotAnswerLeavesTimeForTheOthers(Closure $connect): void
    {
        $silent = stream_socket_server('tcp://127.0.0.1:0');
        assert($silent !== false);
        $server = new Server();
        $swallower = new Swallower('127.0.0.2', $server->port());
        $places = [stream_socket_get_name($silent, false), "127.0.0.2:{$server->port()}", $server->place()];
        self::assertTrue($connect('tcp://' . implode(',', $places), null, 6.0)->stands());
    }

    public function testWithoutAnActiveServerTheExceptionNamesEachPlace(): void
    {
        [$one, $two, $nothing] = [Standby::start(), Standby::start('c.example.org:20934'), new Nothing()];
        $places = [$one->place, $nothing->place, $two->place];
        $e = self::failure(static fn () => Client::connect('tcp://' . implode(',', $places)));
        self::assertTrue($e->isAbsence);
        $reasons = "$one->place: standby; $nothing->place: Connection refused; "
            . "$two->place: standby (active: c.example.org:20934)";
        sort($places, SORT_STRING);
        $group = 'tcp://' . implode(',', $places);
        $expected = "cannot connect to $group: no server of the group is active: $reasons";
        self::assertSame($expected, $e->getMessage());
    }

    /** @dataProvider transports */
    public function testAGroupThatIsAbsentIsAnAbsentServer(Closure $connect): void
    {
        [$one, $two, $standby] = [new Nothing(), new Nothing(), Standby::start()];
        $e = self::failure(static fn () => $connect("tcp://$one->place,$standby->place"));
        self::assertTrue($e->isAbsence);
        self::assertStringContainsString('no server of the group is active', $e->getMessage());
        $e = self::failure(static fn () => $connect("tcp://$one->place,$two->place"));
        self::assertTrue($e->isAbsence);
        self::assertStringContainsString('no place of the group answers', $e->getMessage());
        foreach ([$one, $two] as $nothing) {
            self::assertStringContainsString(" $nothing->place: Connection refused", $e->getMessage());
        }
    }

    /** @dataProvider transports */
    public function testAHostThatIsUnknownIsAMistakeOnlyIfAllAre(Closure $connect): void
    {
        $server = new Server();
        self::assertTrue($connect("tcp://unknown.invalid,{$server->place()}")->stands());
        $e = self::failure(static fn () => $connect("tcp://unknown.invalid," . (new Nothing())->place));
        self::assertTrue($e->isAbsence);
        $e = self::failure(static fn () => $connect('tcp://one.invalid,two.invalid'));
        self::assertStringContainsString('no place of the group is known', $e->getMessage());
        self::assertFalse($e->isAbsence);
    }

    /** @dataProvider transports */
    public function testAStandbyAloneIsAnAbsentServer(Closure $connect): void
    {
        $standby = Standby::start('a.example.org:20934');
        $e = self::failure(static fn () => $connect("tcp://$standby->place"));
        self::assertTrue($e->isAbsence);
        self::assertStringEndsWith("tcp://$standby->place: this server is a standby of the cluster shop; "
            . 'the active server is a.example.org:20934', $e->getMessage());
    }

    /** @dataProvider transports */
    public function testAMistakeIsReportedByTheFirstPlaceThatFindsIt(
        Closure $connect,
        Closure $connectAndAcquire,
    ): void {
        $refusing = FakeServer::start(static function (callable $receive, callable $send): void {
            $id = $receive()['id'];
            $send(FakeServer::frame(['id' => $id, 'result' => ['status' => 'refused', 'reason' => 'a wrong secret']]));
        });
        $web = FakeServer::start(static fn (callable $receive, callable $send) =>
            $send("HTTP/1.0 400 Bad Request\r\n\r\n"));
        [$server, $nothing] = [new Server(), new Nothing()];
        foreach ([[$refusing, 'a wrong secret'], [$web, 'HTTP']] as [$wrong, $why]) {
            $place = substr($wrong->url, strlen('tcp://'));
            $url = "tcp://$nothing->place,$place,{$server->place()}";
            $never = static fn (WaitEvent $event) => self::fail("it waits: $event->name");
            $e = self::failure(static fn () => $connectAndAcquire($url, 'x', 30.0, onWait: $never));
            self::assertStringContainsString($why, $e->getMessage());
            self::assertFalse($e->isAbsence);
        }
    }

    /** @dataProvider transports */
    public function testAPatientClientWaitsUntilAServerIsActive(Closure $connect, Closure $connectAndAcquire): void
    {
        [$standby, $server] = [Standby::start(), new Server()];
        $server->kill();
        $reasons = [];
        $onWait = static function (WaitEvent $event, ?string $reason) use ($server, &$reasons): void {
            self::assertSame(WaitEvent::NoServer, $event);
            $reasons[] = $reason;
            if (count($reasons) === 2) {
                $server->startAgain();
            }
        };
        $url = "tcp://{$server->place()},$standby->place";
        $lock = $connectAndAcquire($url, 'patient', 60.0, onWait: $onWait);
        self::assertTrue($lock?->isHeld());
        self::assertStringContainsString('no server of the group is active', (string) $reasons[0]);
        $server->kill();
        $e = self::failure(static fn () => $connectAndAcquire($url, 'patient', 0.0));
        self::assertTrue($e->isAbsence);
    }

    /** @dataProvider transports */
    public function testNamesAreSpreadOverGroups(Closure $connect): void
    {
        $servers = [new Server(), new Server()];
        [$standby, $nothing] = [Standby::start(), new Nothing()];
        $groups = [
            [$standby->place, $servers[0]->place()],
            [$nothing->place, $servers[1]->place()],
        ];
        $urls = array_map(static fn (array $group): string => 'tcp://' . implode(',', $group), $groups);
        $back = array_map(static fn (array $group): string => 'tcp://' . implode(',', array_reverse($group)), $groups);
        $client = Client::connect(implode(',', $urls));
        $other = $connect(implode(',', array_reverse($back)));
        sort($groups[0], SORT_STRING);
        sort($groups[1], SORT_STRING);
        $keys = array_map(static fn (array $group): string => 'tcp://' . implode(',', $group), $groups);
        $locks = [];
        for ($number = 0; $number < 20; $number++) {
            $name = "spread/$number";
            $locks[] = $client->acquire($name);
            self::assertNull($other->acquire($name));
            $at = array_search(Rendezvous::choose($keys, $name), $keys, true);
            self::assertSame(1, Client::connect($servers[$at]->tcp())->inspect($name)->holders);
        }
    }

    /** That does not happen with the server, which ends its connections when it is not active any more. */
    public function testASessionWhoseServerHasBecomeAStandbyIsLost(): void
    {
        $server = FakeServer::start(static function (callable $receive, callable $send): void {
            FakeServer::hello($receive, $send);
            $send(FakeServer::frame(['id' => $receive()['id'], 'result' => ['status' => 'ok', 'token' => 7]]));
            $send(FakeServer::frame(['id' => $receive()['id'], 'result' => Standby::answer()]));
        });
        $client = Client::connect($server->url);
        $lock = $client->acquire('held');
        self::assertNotNull($lock);
        try {
            $client->inspect('held');
            self::fail('a standby has answered');
        } catch (ConnectionLostException $e) {
            self::assertStringContainsString('a standby of the cluster shop', $e->getMessage());
        }
        self::assertFalse($lock->isHeld() || $client->stands());
    }

    public function testCommandsGoToTheActiveServer(): void
    {
        [$server, $standby] = [new Server(), Standby::start()];
        $commands = MessageClient::connect("tcp://$standby->place,{$server->place()}");
        self::assertSame('ok', $commands->rpc('ping')['status']);
        $e = self::failure(static fn () =>
            MessageClient::connect("tcp://$standby->place," . (new Nothing())->place));
        self::assertStringContainsString('no server of the group is active', $e->getMessage());
    }
}
