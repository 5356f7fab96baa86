<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use DateTimeImmutable;
use Illuminate\Console\Scheduling\Schedule;
use Illuminate\Support\Carbon;
use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Laravel\HolderProcess;
use Lockd\Laravel\SeparateLocks;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** The locks of `onOneServer()`, and the process that holds them. */
final class LockdSchedulingMutexTest extends TestCase
{
    private Server $server;
    private Client $client;
    /** @var list<Scheduler> */
    private array $schedulers = [];

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->client = Client::connect($this->server->tcp());
    }

    protected function tearDown(): void
    {
        Carbon::setTestNow();
        putenv('APP_MARK');
        putenv('PHP_INI_SCAN_DIR');
        foreach ($this->schedulers as $scheduler) {
            $scheduler->kill();
        }
    }

    /** A scheduler in this process; the holders that it starts are found by the result. */
    private function marked(): Scheduler
    {
        $this->schedulers[] = $scheduler = new Scheduler($this->server, '');
        putenv('APP_MARK=' . $scheduler->mark);
        return $scheduler;
    }

    private function schedule(array $config = []): Schedule
    {
        $config += ['url' => $this->server->tcp(), 'scheduler' => true];
        return Application::with(['lockd' => $config])->make(Schedule::class);
    }

    private function holder(): HolderProcess
    {
        return new HolderProcess(new SeparateLocks($this->server->tcp(), 'shop', 5.0, ''));
    }

    public function testOneServerRunsTheEventOfAMinute(): void
    {
        $this->marked();
        [$ours, $theirs] = [$this->schedule(), $this->schedule()];
        $event = $ours->exec('true');
        $at = new DateTimeImmutable('2030-01-01 12:00:05');
        Carbon::setTestNow($at);
        self::assertTrue($ours->serverShouldRun($event, $at));
        self::assertFalse($ours->serverShouldRun($event, $at));
        self::assertFalse($theirs->serverShouldRun($event, $at->modify('+50 seconds')));
        self::assertTrue($theirs->serverShouldRun($theirs->exec('false'), $at));
        self::assertTrue($theirs->serverShouldRun($event, $at->modify('+55 seconds')));
    }

    public function testASchedulerThatWasStoppedWhileItAskedDoesNotRunTheEventTooLate(): void
    {
        $this->marked();
        $schedule = $this->schedule(['late_minutes' => 2]);
        $event = $schedule->exec('true');
        // The clock is read before the lock is asked for, and after it was granted.
        $times = ['2030-01-01 12:00:05', '2030-01-01 12:02:00'];
        Carbon::setTestNow(static function () use (&$times): Carbon {
            return new Carbon(count($times) > 1 ? array_shift($times) : $times[0]);
        });
        $this->expectException(RefusedException::class);
        $this->expectExceptionMessage('2 minutes later');
        $schedule->serverShouldRun($event, new DateTimeImmutable('2030-01-01 12:00:05'));
    }

    public function testWhatWasTakenStaysTakenWhenTheSchedulerIsKilled(): void
    {
        $scheduler = $this->marked();
        $child = Child::start(function (callable $say, callable $pause): void {
            $say($this->holder()->try('event', 600) ? 'yes' : 'no');
            $pause();
        });
        self::assertSame('yes', $child->hear());
        $child->kill();
        self::assertSame(1, $this->client->inspect('event')->holders);
        self::assertFalse($this->holder()->try('event', 600));
        // The one that has a lock is still there, and the other one has ended with its scheduler.
        Deadline::until('one holder is left', static fn (): bool => count($scheduler->holders()) === 1);
        self::assertSame('shop', [...$this->client->list('event')][0]->holders[0]->owner);
    }

    public function testItIsForgottenAfterItsTime(): void
    {
        $scheduler = $this->marked();
        $holder = $this->holder();
        self::assertTrue($holder->try('short', 1));
        self::assertTrue($holder->try('long', 600));
        Deadline::until('the lock is free', fn (): bool => !$this->client->inspect('short')->isHeld());
        self::assertFalse($this->client->inspect('short')->orphaned);
        self::assertTrue($this->client->inspect('long')->isHeld());
        self::assertTrue($holder->try('short', 1));
        unset($holder);
        self::assertCount(1, $scheduler->holders());
        posix_kill($scheduler->holders()[0], SIGTERM);
        Deadline::until('the lock is free', fn (): bool => !$this->client->inspect('long')->isHeld());
    }

    public function testTheHolderEndsAfterTheLastLock(): void
    {
        $scheduler = $this->marked();
        self::assertTrue($this->holder()->try('event', 1));
        Deadline::until('the holder has ended', static fn (): bool => $scheduler->holders() === []);
        self::assertFalse($this->client->inspect('event')->isHeld());
    }

    /** A web server's process, for example, does not wait for the end of its children. */
    public function testTheHolderIsNoChildOfTheProcessThatAsks(): void
    {
        $scheduler = $this->marked();
        $holder = $this->holder();
        self::assertTrue($holder->try('event', 600));
        self::assertNotSame(getmypid(), self::stat($scheduler->holders()[0])[1]);
        foreach (glob('/proc/[0-9]*') ?: [] as $process) {
            self::assertNotSame(['Z', getmypid()], self::stat((int) basename($process)), 'a zombie is left');
        }
    }

    /** @return array{string, int} the state of a process, and its parent */
    private static function stat(int $pid): array
    {
        preg_match('/\) (\w) (\d+) /', (string) @file_get_contents("/proc/$pid/stat"), $parts);
        return [$parts[1] ?? 'X', (int) ($parts[2] ?? 0)];
    }

    public function testTheHolderEndsWithItsServer(): void
    {
        $scheduler = $this->marked();
        $holder = $this->holder();
        self::assertTrue($holder->try('event', 600));
        $this->server->restart();
        // As long as the scheduler may ask, the holder stays.
        self::assertTrue($holder->try('event', 600));
        self::assertFalse($this->holder()->try('event', 600));
        unset($holder);
        Deadline::until('the other holder has ended', static fn (): bool => count($scheduler->holders()) === 1);
        $this->server->kill();
        Deadline::until('the holder has ended', static fn (): bool => $scheduler->holders() === []);
    }

    /** The locks on the servers that are left stay held. */
    public function testTheHolderStaysWhenOneOfItsServersIsGone(): void
    {
        $scheduler = $this->marked();
        $another = new Server();
        $url = "{$this->server->tcp()},{$another->tcp()}";
        $holder = new HolderProcess(new SeparateLocks($url, null, 5.0, ''));
        foreach (range(1, 20) as $number) {
            self::assertTrue($holder->try("event $number", 600));
        }
        $left = count([...$this->client->list()]);
        self::assertGreaterThan(0, $left);
        self::assertLessThan(20, $left);
        $another->kill();
        unset($holder);
        // Longer than the holder's pause between two looks: it has looked when this one has ended.
        $ended = new HolderProcess(new SeparateLocks($this->server->tcp(), null, 5.0, ''));
        self::assertTrue($ended->try('short', 2));
        unset($ended);
        Deadline::until('one holder is left', static fn (): bool => count($scheduler->holders()) === 1);
        self::assertCount($left, [...$this->client->list('event')]);
    }

    public function testTheHolderInheritsNothingButItsPipes(): void
    {
        $scheduler = $this->marked();
        $file = fopen(__FILE__, 'r');
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $lock = Client::connectAndAcquire($this->server->tcp(), 'lock', 0.0);
        self::assertNotNull($lock);
        $holder = $this->holder();
        self::assertTrue($holder->try('event', 600));
        $ours = self::openFiles(getmypid());
        self::assertContains(__FILE__, $ours);
        $shared = array_diff(array_intersect(self::openFiles($scheduler->holders()[0]), $ours), ['/dev/null']);
        self::assertCount(2, preg_grep('/^pipe:/', $shared));
        self::assertCount(2, $shared);
        fclose($file);
        fclose($listener);
    }

    /** @return list<string> */
    private static function openFiles(int $pid): array
    {
        $files = [];
        foreach (glob("/proc/$pid/fd/*") ?: [] as $descriptor) {
            // The list itself was open while it was read.
            $files[] = (string) @readlink($descriptor);
        }
        return array_values(array_filter($files, static fn (string $file): bool => $file !== ''));
    }

    public function testSignalsOfTheTerminalDoNotEndTheHolder(): void
    {
        $scheduler = $this->marked();
        $holder = $this->holder();
        self::assertTrue($holder->try('event', 600));
        $pid = $scheduler->holders()[0];
        self::assertSame($pid, posix_getsid($pid));
        foreach ([SIGHUP, SIGINT, SIGQUIT] as $signal) {
            posix_kill($pid, $signal);
        }
        self::assertFalse($holder->try('event', 600));
        self::assertTrue($this->client->inspect('event')->isHeld());
    }

    public function testAForkedChildHasAHolderOfItsOwn(): void
    {
        $scheduler = $this->marked();
        $holder = $this->holder();
        self::assertTrue($holder->try('event', 600));
        $child = Child::start(static function () use ($holder): void {
            self::assertFalse($holder->try('event', 600));
            self::assertTrue($holder->try('another', 600));
        });
        self::assertSame('done', $child->hear());
        self::assertCount(2, $scheduler->holders());
    }

    public function testAHolderThatWasKilledIsNoYes(): void
    {
        $scheduler = $this->marked();
        $holder = $this->holder();
        self::assertTrue($holder->try('event', 600));
        $scheduler->kill();
        Deadline::until('the lock is free', fn (): bool => !$this->client->inspect('event')->isHeld());
        try {
            $holder->try('event', 600);
            self::fail('nobody holds it');
        } catch (LockdException) {
            self::assertTrue($holder->try('event', 600));
        }
    }

    public function testWhatPhpPrintsWhenItStartsIsNoAnswer(): void
    {
        $this->marked();
        $settings = "display_errors = 1\ndisplay_startup_errors = 1\nextension = missing\n";
        file_put_contents($this->server->directory() . '/warning.ini', $settings);
        putenv('PHP_INI_SCAN_DIR=:' . $this->server->directory());
        $holder = $this->holder();
        self::assertSame([true, false], [$holder->try('event', 600), $holder->try('event', 600)]);
    }

    public function testAnEventThatIsTooLateDoesNotRun(): void
    {
        $this->marked();
        $schedule = $this->schedule(['late_minutes' => 2]);
        $event = $schedule->exec('true');
        $at = new DateTimeImmutable('2030-01-01 12:00:05');
        Carbon::setTestNow('2030-01-01 12:01:59');
        self::assertTrue($schedule->serverShouldRun($event, $at));
        Carbon::setTestNow('2030-01-01 12:02:00');
        $this->expectException(RefusedException::class);
        $this->expectExceptionMessage('due at 12:00');
        $schedule->serverShouldRun($event, $at);
    }

    public function testWithoutAServerTheEventDoesNotRun(): void
    {
        $this->marked();
        $schedule = $this->schedule();
        $this->server->kill();
        Carbon::setTestNow('2030-01-01 12:00:05');
        $this->expectException(LockdException::class);
        $this->expectExceptionMessage('cannot connect');
        $schedule->serverShouldRun($schedule->exec('true'), new DateTimeImmutable('2030-01-01 12:00:05'));
    }

    public function testTellsWhetherAServerHasTakenAnEvent(): void
    {
        $this->marked();
        $app = Application::with(['lockd' => ['url' => $this->server->tcp(), 'scheduler' => true]]);
        $mutex = $app->make(\Illuminate\Console\Scheduling\SchedulingMutex::class);
        $event = $app->make(Schedule::class)->exec('true');
        $at = new DateTimeImmutable('2030-01-01 12:00:05');
        Carbon::setTestNow($at);
        self::assertFalse($mutex->exists($event, $at));
        self::assertTrue($mutex->create($event, $at));
        self::assertTrue($mutex->exists($event, $at));
        $this->expectException(InvalidArgumentException::class);
        $this->schedule(['late_minutes' => 0]);
    }

    public function testTheOutputOfScheduleRunEndsWithIt(): void
    {
        $this->schedulers[] = $scheduler = new Scheduler(
            $this->server,
            '$schedule->exec("true")->everyMinute()->onOneServer();'
        );
        $run = $scheduler->start();
        self::assertStringContainsString('Running', $run->end());
        self::assertCount(1, $scheduler->holders());
        self::assertStringContainsString('another server', $scheduler->start('2030-01-01 12:00:55')->end());
    }
}
