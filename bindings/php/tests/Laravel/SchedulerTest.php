<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Lockd\Client;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** `withoutOverlapping()` with Laravel's scheduler, in real processes that are killed. */
final class SchedulerTest extends TestCase
{
    /** Runs until a line is written to the FIFO `gate`. */
    private const COMMAND = '
        $schedule->exec("{ echo begins >> $dir/out; read line < $dir/gate; echo ends >> $dir/out; }")
            ->everyMinute()->withoutOverlapping()';

    private Server $server;
    private Client $client;
    /** @var resource */
    private $gate;

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->client = Client::connect($this->server->tcp());
        posix_mkfifo($this->server->directory() . '/gate', 0600);
        $gate = fopen($this->server->directory() . '/gate', 'r+');
        self::assertIsResource($gate);
        $this->gate = $gate;
    }

    private function goOn(): void
    {
        fwrite($this->gate, "\n");
    }

    private function awaitOutput(string $line, int $times = 1): void
    {
        $file = $this->server->directory() . '/out';
        Deadline::until("the command says $line", static fn (): bool =>
            substr_count((string) @file_get_contents($file), "$line\n") === $times);
    }

    private function held(): int
    {
        return count([...$this->client->list('shop_cache_framework/schedule-')]);
    }

    private function awaitHeld(int $locks): void
    {
        Deadline::until("$locks locks are held", fn (): bool => $this->held() === $locks);
    }

    /** @return iterable<string, array{string}> */
    public static function kinds(): iterable
    {
        yield 'foreground' => [''];
        yield 'background' => ['->runInBackground()'];
    }

    /** @dataProvider kinds */
    public function testTheLockIsHeldWhileTheCommandRuns(string $kind): void
    {
        $scheduler = new Scheduler($this->server, self::COMMAND . "$kind;");
        $first = $scheduler->start();
        $this->awaitOutput('begins');
        $kind === '' || $first->end();
        self::assertSame(1, $this->held());
        // The next minute.
        self::assertStringContainsString('No scheduled', $scheduler->start('2030-01-01 12:01:05')->end());
        $this->goOn();
        $first->end();
        $this->awaitOutput('ends');
        $this->awaitHeld(0);
        $this->goOn();
        $scheduler->start('2030-01-01 12:02:05')->end();
        $this->awaitOutput('ends', 2);
    }

    /** @dataProvider kinds */
    public function testTheLockIsHeldByTheCommandWhenItsSchedulerIsKilled(string $kind): void
    {
        $scheduler = new Scheduler($this->server, self::COMMAND . "$kind;");
        $first = $scheduler->start();
        $this->awaitOutput('begins');
        $first->kill();
        self::assertStringContainsString('No scheduled', $scheduler->start('2030-01-01 12:01:05')->end());
        self::assertSame(1, $this->held());
        $this->goOn();
        $this->awaitOutput('ends');
        $this->awaitHeld(0);
    }

    /** @dataProvider kinds */
    public function testTheLockIsFreeWhenEverythingIsKilled(string $kind): void
    {
        $scheduler = new Scheduler($this->server, self::COMMAND . "$kind;");
        $first = $scheduler->start();
        $this->awaitOutput('begins');
        $scheduler->kill();
        $first->kill();
        $this->awaitHeld(0);
        $this->goOn();
        $scheduler->start('2030-01-01 12:01:05')->end();
        $this->awaitOutput('begins', 2);
    }

    public function testTheLockOfAClosureIsFreeWhenItsSchedulerIsKilled(): void
    {
        $scheduler = new Scheduler($this->server, '$schedule->call(static function () use ($dir): void {
                file_put_contents("$dir/out", "begins\n", FILE_APPEND);
                fgets(fopen("$dir/gate", "r"));
            })->name("closure")->everyMinute()->withoutOverlapping();');
        $first = $scheduler->start();
        $this->awaitOutput('begins');
        self::assertSame(1, $this->held());
        self::assertStringContainsString('No scheduled', $scheduler->start('2030-01-01 12:01:05')->end());
        $first->kill();
        $this->awaitHeld(0);
        $this->goOn();
        $scheduler->start('2030-01-01 12:02:05')->end();
        $this->awaitOutput('begins', 2);
        $this->awaitHeld(0);
    }

    public function testACommandHoldsTheLockOfNoOtherEvent(): void
    {
        $scheduler = new Scheduler($this->server, '
            $schedule->exec("{ read line < $dir/gate; echo ends >> $dir/out; }")
                ->everyMinute()->withoutOverlapping()->runInBackground();
            $schedule->exec("{ echo second >> $dir/out; read line < $dir/othergate; }")
                ->everyMinute()->withoutOverlapping()->runInBackground();
        ');
        posix_mkfifo($this->server->directory() . '/othergate', 0600);
        $scheduler->start()->end();
        $this->awaitOutput('second');
        $this->awaitHeld(2);
        $this->goOn();
        $this->awaitOutput('ends');
        $this->awaitHeld(1);
    }

    public function testTheCallbacksAfterACommandInTheBackgroundRunUnderTheLock(): void
    {
        $url = var_export($this->server->tcp(), true);
        $scheduler = new Scheduler($this->server, '$schedule->exec("true")->everyMinute()->withoutOverlapping()
            ->runInBackground()->after(static function () use ($dir): void {
                $held = count([...Lockd\Client::connect(' . $url . ')->list("shop_cache_framework/schedule-")]);
                file_put_contents("$dir/out", "after: $held held\n", FILE_APPEND);
            });');
        $scheduler->start()->end();
        $this->awaitOutput('after: 1 held');
        $this->awaitHeld(0);
    }

    public function testWithoutAServerOtherEventsRun(): void
    {
        $scheduler = new Scheduler($this->server, self::COMMAND . ';
            $schedule->exec("{ echo another >> $dir/out; }")->everyMinute();');
        $this->server->kill();
        $scheduler->start()->end();
        $this->awaitOutput('another');
        self::assertStringNotContainsString('begins', (string) file_get_contents($this->server->directory() . '/out'));
        self::assertSame([], $scheduler->processes());
    }
}
