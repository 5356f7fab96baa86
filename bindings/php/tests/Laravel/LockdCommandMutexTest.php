<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Illuminate\Console\Command;
use Illuminate\Console\CommandMutex;
use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Laravel\LockdCommandMutex;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** The locks of isolated commands, in two applications that stand for two processes. */
final class LockdCommandMutexTest extends TestCase
{
    private Server $server;

    protected function setUp(): void
    {
        $this->server = new Server();
    }

    private function mutex(): CommandMutex
    {
        $config = ['lockd' => ['url' => $this->server->tcp(), 'commands' => true]];
        return Application::with($config)->make(CommandMutex::class);
    }

    private static function command(string $name): Command
    {
        $command = new Command();
        $command->setName($name);
        return $command;
    }

    public function testOneProcessAtATimeRunsACommand(): void
    {
        [$ours, $theirs, $command] = [$this->mutex(), $this->mutex(), self::command('report:write')];
        self::assertInstanceOf(LockdCommandMutex::class, $ours);
        self::assertFalse($ours->exists($command));
        self::assertTrue($ours->create($command));
        self::assertSame([false, false], [$ours->create($command), $theirs->create($command)]);
        self::assertTrue($theirs->exists($command));
        self::assertTrue($theirs->create(self::command('report:send')));
        self::assertFalse($theirs->forget($command));
        self::assertTrue($ours->exists($command));
        self::assertTrue($ours->forget($command));
        self::assertFalse($ours->forget($command));
        self::assertTrue($theirs->create($command));
        $name = 'shop_cache_framework/command-report:write';
        self::assertTrue(Client::connect($this->server->tcp())->inspect($name)->isHeld());
    }

    public function testACommandMayHaveSeveralLocks(): void
    {
        $command = static fn (string $user): Command => new class ($user) extends Command {
            public function __construct(private string $user)
            {
                $this->name = 'report:write';
                parent::__construct();
            }

            public function isolatableId(): string
            {
                return $this->user;
            }
        };
        [$ours, $theirs] = [$this->mutex(), $this->mutex()];
        self::assertTrue($ours->create($command('1')));
        self::assertTrue($theirs->create($command('2')));
        self::assertFalse($theirs->create($command('1')));
    }

    public function testTheLockIsFreeWhenTheProcessIsKilled(): void
    {
        $mutex = $this->mutex();
        $child = Child::start(function (callable $say, callable $pause): void {
            $say($this->mutex()->create(self::command('report:write')) ? 'yes' : 'no');
            $pause();
        });
        self::assertSame('yes', $child->hear());
        self::assertFalse($mutex->create(self::command('report:write')));
        $child->kill();
        Deadline::until('it is free', static fn (): bool => $mutex->create(self::command('report:write')));
    }

    public function testALockThatWasLostIsNoSuccess(): void
    {
        [$mutex, $command] = [$this->mutex(), self::command('report:write')];
        $mutex->create($command);
        $this->server->kill();
        try {
            $mutex->forget($command);
            self::fail('the lock was lost');
        } catch (ConnectionLostException) {
            $this->expectException(ConnectException::class);
            $mutex->create($command);
        }
    }
}
