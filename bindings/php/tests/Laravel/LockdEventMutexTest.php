<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Illuminate\Console\Scheduling\Event;
use Illuminate\Console\Scheduling\EventMutex;
use Illuminate\Console\Scheduling\Schedule;
use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Laravel\LockdEventMutex;
use Lockd\Tests\Support\Child;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** The locks of events, without running the events: Laravel's events and schedule, a real server. */
final class LockdEventMutexTest extends TestCase
{
    private Server $server;

    protected function setUp(): void
    {
        $this->server = new Server();
    }

    /** One of several schedulers, all of the same application. */
    private function schedule(): Schedule
    {
        $config = ['lockd' => ['url' => $this->server->tcp(), 'scheduler' => true]];
        return Application::with($config)->make(Schedule::class);
    }

    /** A program that runs until the result is closed, with all connections of this process. */
    private static function startCommand(): mixed
    {
        $process = proc_open(['cat'], [['pipe', 'r'], ['null'], ['null']], $pipes);
        self::assertIsResource($process);
        return [$process, $pipes[0]];
    }

    private static function endCommand(array $command): void
    {
        fclose($command[1]);
        proc_close($command[0]);
    }

    private function isFree(Event $event): bool
    {
        return !Client::connect($this->server->tcp())->inspect('shop_cache_' . $event->mutexName())->isHeld();
    }

    public function testOneSchedulerAtATimeHasTheLockOfAnEvent(): void
    {
        foreach (['exec' => 'true', 'call' => static fn (): bool => true] as $kind => $what) {
            $event = $this->schedule()->$kind($what)->name("an event by $kind");
            $theirs = $this->schedule()->$kind($what)->name("an event by $kind");
            self::assertInstanceOf(LockdEventMutex::class, $event->mutex);
            self::assertFalse($theirs->mutex->exists($theirs));
            self::assertTrue($event->mutex->create($event));
            self::assertSame([false, false], [$event->mutex->create($event), $theirs->mutex->create($theirs)]);
            self::assertSame([true, true], [$event->mutex->exists($event), $theirs->mutex->exists($theirs)]);
            // `schedule:finish` calls this in a process that does not have the lock.
            $theirs->mutex->forget($theirs);
            self::assertTrue($theirs->mutex->exists($theirs));
            $event->exitCode = 0;
            $event->mutex->forget($event);
            self::assertTrue($this->isFree($event));
            self::assertTrue($theirs->mutex->create($theirs));
            $event->mutex->forget($event);
            self::assertFalse($this->isFree($event));
        }
    }

    public function testOtherEventsAreNotExcluded(): void
    {
        $schedule = $this->schedule();
        foreach ([$schedule->exec('one'), $schedule->exec('two')] as $event) {
            self::assertTrue($event->mutex->create($event));
        }
    }

    public function testAnEventThatHasEndedFreesItsLockWhateverItHasStarted(): void
    {
        $event = $this->schedule()->exec('true');
        self::assertTrue($event->mutex->create($event));
        $daemon = self::startCommand();
        $event->exitCode = 0;
        $event->mutex->forget($event);
        self::assertTrue($this->isFree($event));
        self::endCommand($daemon);
    }

    /** As when a signal handler of Laravel's gives up the lock of an event that is running. */
    public function testALockThatIsGivenUpStaysWithTheCommand(): void
    {
        $event = $this->schedule()->exec('true');
        $event->exitCode = 0;
        self::assertTrue($event->mutex->create($event));
        $command = self::startCommand();
        $event->mutex->forget($event);
        self::assertFalse($this->isFree($event));
        self::endCommand($command);
        Deadline::until('the lock is free', fn (): bool => $this->isFree($event));
    }

    public function testALockThatIsGivenUpBeforeTheCommandIsFree(): void
    {
        $event = $this->schedule()->exec('true');
        self::assertTrue($event->mutex->create($event));
        $event->mutex->forget($event);
        Deadline::until('the lock is free', fn (): bool => $this->isFree($event));
    }

    public function testALockLastsWhenItsMutexIsDestroyedAndTheCommandRuns(): void
    {
        $event = $this->schedule()->exec('true');
        self::assertTrue($event->mutex->create($event));
        $command = self::startCommand();
        $event = (fn (): Event => $this->schedule()->exec('true'))();
        Application::setInstance(null);
        gc_collect_cycles();
        self::assertFalse($this->isFree($event));
        self::endCommand($command);
        Deadline::until('the lock is free', fn (): bool => $this->isFree($event));
    }

    public function testAForkedChildDoesNotGiveUpTheLock(): void
    {
        $event = $this->schedule()->exec('true');
        self::assertTrue($event->mutex->create($event));
        $child = Child::start(static function () use ($event): void {
            $event->exitCode = 0;
            $event->mutex->forget($event);
        });
        self::assertSame('done', $child->hear());
        self::assertFalse($this->isFree($event));
    }

    public function testWithoutAServerTheEventDoesNotRun(): void
    {
        $event = $this->schedule()->exec('true');
        $this->server->kill();
        // An exception here would end schedule:run, together with the events that need no lock.
        self::assertFalse($event->mutex->exists($event));
        $this->expectException(ConnectException::class);
        $event->mutex->create($event);
    }

    public function testALockThatWasLostIsReported(): void
    {
        $reports = [];
        $locks = Application::with(['lockd' => ['url' => $this->server->tcp()]])
            ->make(\Lockd\Laravel\SeparateLocks::class);
        $mutex = new LockdEventMutex($locks, static function (LockdException $e) use (&$reports): void {
            $reports[] = $e;
        });
        $event = new Event($mutex, 'true');
        self::assertTrue($mutex->create($event));
        $this->server->kill();
        $event->exitCode = 0;
        $mutex->forget($event);
        self::assertCount(1, $reports);
    }

    public function testACommandThatWouldNotInheritTheLockIsRefused(): void
    {
        $event = $this->schedule()->exec('true')->user('www-data')->withoutOverlapping();
        self::assertTrue($event->mutex->create($event));
        $event = $this->schedule()->exec('true')->user('www-data')->runInBackground()->withoutOverlapping();
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('sudo');
        $event->mutex->create($event);
    }

    public function testTheSchedulersCacheStoreDoesNotMatter(): void
    {
        $schedule = $this->schedule();
        self::assertInstanceOf(EventMutex::class, $schedule->useCache('array')->exec('true')->mutex);
        $event = $schedule->exec('true');
        self::assertTrue($event->mutex->create($event));
        self::assertFalse($this->isFree($event));
    }
}
