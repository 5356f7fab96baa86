<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

use Closure;
use lockc;
use Lockd\Client;
use Lockd\Tests\Support\Server;
use pkLockClient;
use RuntimeException;

require_once __DIR__ . '/../../compat/lockc.php';
require_once __DIR__ . '/../../compat/pkLockClient.php';

/**
 * What each method of the drop-in classes answers in each situation. The answers are read from the
 * tables of docs/moving.md; how a situation comes about is here.
 */
final class BehaviourTest extends CompatTestCase
{
    /** @var list<object> clients that hold a lock until the call has been made */
    private array $others = [];

    protected function setUp(): void
    {
        parent::setUp();
        // The limit of `lockc` for a reply.
        $this->iniSet('default_socket_timeout', '1');
    }

    protected function tearDown(): void
    {
        $this->others = [];
        parent::tearDown();
    }

    /**
     * The rows of a class's table: the situation, and the answers by column.
     *
     * @return array<string, array{string, array<string, string>}>
     */
    private static function table(string $class): array
    {
        $document = (string) file_get_contents(__DIR__ . '/../../docs/moving.md');
        $table = "/^## `$class`\n(?:(?!## ).*\n)*?(\\| the lock, or the connection .*(?:\n\\|.*)+)/m";
        if (preg_match($table, $document, $found) !== 1) {
            throw new RuntimeException("docs/moving.md has no table of $class");
        }
        $cells = static fn (string $line): array => array_map('trim', explode('|', trim($line, '|')));
        [$columns, , $rows] = [$cells(strtok($found[1], "\n")), strtok("\n"), []];
        while (($line = strtok("\n")) !== false) {
            $row = array_combine($columns, $cells($line));
            $situation = array_shift($row);
            $rows[$situation] = [$situation, $row];
        }
        return $rows;
    }

    /** @return array<string, array{string, array<string, string>}> */
    public function lockcTable(): array
    {
        return self::table('lockc');
    }

    /** @return array<string, array{string, array<string, string>}> */
    public function pkLockClientTable(): array
    {
        return self::table('pkLockClient');
    }

    public function testTheTablesHaveExactlyTheseSituations(): void
    {
        self::assertSame(array_keys($this->lockcSituations(false)), array_keys($this->lockcTable()));
        self::assertSame(array_keys($this->pkLockClientSituations()), array_keys($this->pkLockClientTable()));
    }

    /**
     * @dataProvider lockcTable
     * @param array<string, string> $answers
     */
    public function testLockc(string $situation, array $answers): void
    {
        self::assertCount(6, $answers);
        foreach ($answers as $column => $answer) {
            [$method, $shared] = [trim(strtok($column, ','), '`'), str_ends_with($column, ', true')];
            $make = $this->lockcSituations($shared)[$situation];
            $this->assertAnswers($answer, $column, $make, static fn (lockc $client) => $client->$method('a', $shared));
        }
    }

    public function testTheOtherNamesOfLockcsMethodsAnswerTheSame(): void
    {
        $names = ['get' => 'lock', 'release' => 'unlock', 'check' => 'is_locked', 'inspect' => 'is_locked'];
        foreach (['held by this object, on port 2626', 'held by another object', 'there is no server'] as $row) {
            foreach ($names as $name => $method) {
                foreach (["`$method`" => false, "`$method`, true" => true] as $column => $shared) {
                    $answer = $this->lockcTable()[$row][1][$column];
                    $call = static fn (lockc $client) => $client->$name('a', $shared);
                    $this->assertAnswers($answer, $name, $this->lockcSituations($shared)[$row], $call);
                }
            }
        }
    }

    /**
     * @dataProvider pkLockClientTable
     * @param array<string, string> $answers
     */
    public function testPkLockClient(string $situation, array $answers): void
    {
        self::assertCount(5, $answers);
        foreach ($answers as $column => $answer) {
            $method = trim($column, '`');
            $call = static fn (pkLockClient $client) => match ($method) {
                'lock', 'unlock' => $client->$method('a'),
                'rpc' => is_array($result = $client->rpc('ping')) ? 'result' : $result,
                'poll', 'flush' => $client->$method(),
            };
            $this->assertAnswers($answer, $method, $this->pkLockClientSituations()[$situation], $call);
        }
    }

    /**
     * @param Closure(): array{object, bool} $make makes the situation, on a new server: a client,
     *     and whether the call is made in a forked child
     */
    private function assertAnswers(string $answer, string $what, Closure $make, callable $call): void
    {
        $this->server = new Server();
        [$client, $inChild] = $make();
        $given = $inChild ? $this->inChild(static fn () => $call($client)) : $call($client);
        self::assertSame($answer, trim(var_export($given, true), "'"), $what);
        $this->others = [];
        $this->forgetWarnings();
    }

    /** @return array<string, Closure(): array{lockc, bool}> */
    private function lockcSituations(bool $shared): array
    {
        $client = fn (string $protocol = 'lockd'): lockc => new lockc('127.0.0.1', $this->server->port($protocol));
        // A client that has acquired this lock, or nothing, before something happens.
        $having = static function (string $name, ?callable $happens, string ...$on) use ($client, $shared): array {
            $one = $client(...$on);
            self::assertSame($name === '' ? 0 : 1, $name === '' ? $one->is_locked('a') : $one->lock($name, $shared));
            $happens === null || $happens();
            return [$one, false];
        };
        return [
            'free' => fn () => [$client(), false],
            'held by this object, on port 2626' => fn () => $having('a', null),
            'held by this object, on port 9999' => fn () => $having('a', null, 'glockd'),
            'held by another object' => function () use ($client, $shared): array {
                $this->others[] = $client();
                self::assertSame(1, $this->others[0]->lock('a', $shared));
                return [$client(), false];
            },
            'held exclusively by a client of `message`' => fn () => [$client(), $this->heldByMessage()],
            'shared by a client of `message`' => fn () => [$client(), $this->heldByMessage(shared: true)],
            'limited by a client of `message`' => fn () => [$client(), $this->heldByMessage(atMost: 4)],
            'there is no server' => fn () => [$client(), $this->server->kill() !== null],
            'the server does not answer in time' => fn () => $having('', $this->server->pause(...)),
            'lost, and this lock with it' => fn () => $having('a', $this->server->restart(...)),
            'lost without locks, and the server is back' => fn () => $having('', $this->server->restart(...)),
            'held by this object, in a forked child' => fn () => [$having('a', null)[0], true],
        ];
    }

    /** @return array<string, Closure(): array{pkLockClient, bool}> */
    private function pkLockClientSituations(): array
    {
        $client = fn (array $limits = []): pkLockClient =>
            new pkLockClient(['host' => '127.0.0.1', 'port' => $this->server->port()] + $limits);
        // A client that has acquired this lock, or is just connected, before something happens.
        $having = static function (string $name, ?callable $happens, array $limits = []) use ($client): array {
            $one = $client($limits);
            self::assertTrue($name === '' ? $one->rpc('ping') !== false : $one->lock($name));
            $happens === null || $happens($one);
            return [$one, false];
        };
        $impatient = ['timeLimit' => 0, 'answerTimeLimit' => 0.2];
        $hang = function (pkLockClient $one): void {
            $this->server->pause();
            self::assertFalse($one->unlock('b'));
        };
        $busy = fn (array $mode): Closure =>
            fn (): array => $having('', fn () => $this->heldByMessage(...$mode), ['timeLimit' => 0]);
        return [
            'not connected yet' => fn () => [$client(), false],
            'free' => fn () => $having('', null),
            'held by this object' => fn () => $having('a', null),
            'held exclusively by another, until the time limit' => $busy([]),
            'shared by another, until the time limit' => $busy(['atMost' => null, 'shared' => true]),
            'limited by another, until the time limit' => $busy(['atMost' => 4]),
            'there is no server' => fn () => [$client(), $this->server->kill() !== null],
            'the server does not answer in time' => fn () => $having('', fn () => $this->server->pause(), $impatient),
            'the server does not answer, also not to an `unlock` before' => fn () => $having('', $hang, $impatient),
            'lost, and this lock with it' => fn () => $having('a', fn () => $this->server->restart()),
            'lost, and another lock with it' => fn () => $having('b', fn () => $this->server->restart()),
            'lost without locks, and the server is back' => fn () => $having('', fn () => $this->server->restart()),
            'held by this object, in a forked child' => fn () => [$having('a', null)[0], true],
        ];
    }

    /** Another client acquires the lock. Returns false, for the call is not made in a child. */
    private function heldByMessage(?int $atMost = null, bool $shared = false): bool
    {
        $client = Client::connect($this->server->tcp());
        $this->others[] = $client->acquire('a', 0.0, $shared, $atMost) ?? self::fail('the lock is not free');
        return false;
    }
}
