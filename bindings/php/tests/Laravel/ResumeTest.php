<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Illuminate\Console\Scheduling\Schedule;
use Lockd\Client;
use Lockd\Exception\DoubtException;
use Lockd\Exception\LockdException;
use Lockd\Laravel\HolderProcess;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Laravel\SeparateLocks;
use Lockd\SessionState;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Laravel's locks where the address asks for sessions that resume. */
final class ResumeTest extends TestCase
{
    private Server $server;

    protected function setUp(): void
    {
        $this->server = new Server(remembers: true);
    }

    protected function tearDown(): void
    {
        putenv('APP_MARK');
    }

    private function url(): string
    {
        return $this->server->tcp() . '?resume';
    }

    public function testALockInDoubtIsNotOurs(): void
    {
        $locks = new LockdLockProvider($this->url());
        [$lock, $given] = [$locks->lock('report'), $locks->lock('given up')];
        self::assertTrue($lock->get());
        self::assertTrue($given->get());
        $this->server->stop();
        self::assertFalse($lock->isOwnedByCurrentProcess());
        self::assertFalse($lock->refresh());
        self::assertFalse($given->release());
        foreach ([$lock->get(...), $lock->isLocked(...), static fn () => $locks->lock('other')->block(0)] as $call) {
            try {
                self::fail('it is in doubt, but: ' . json_encode($call()));
            } catch (DoubtException $e) {
                self::assertStringContainsString('in doubt', $e->getMessage());
            }
        }
        $this->server->startAgain();
        Deadline::until('the session is resumed', static fn (): bool => $lock->isOwnedByCurrentProcess());
        self::assertFalse($given->isOwnedByCurrentProcess());
        self::assertTrue($lock->release());
    }

    public function testAFunctionUnderALockSurvivesARestart(): void
    {
        $lock = (new LockdLockProvider($this->url()))->lock('report');
        $body = function (): string {
            $this->server->restartCleanly();
            return 'done';
        };
        self::assertSame('done', $lock->get($body));
        self::assertFalse($lock->isLocked());
    }

    /** Its process looks after the session by itself, with and without a scheduler. */
    public function testTheHolderOfOnOneServerKeepsItsLocksThroughARestart(): void
    {
        $scheduler = new Scheduler($this->server, '');
        putenv('APP_MARK=' . $scheduler->mark);
        try {
            $separate = fn (): SeparateLocks => new SeparateLocks($this->url(), 'shop', 5.0, '');
            $holder = new HolderProcess($separate());
            self::assertTrue($holder->try('event', 600));
            $this->server->stop();
            try {
                self::fail('it is in doubt, but: ' . json_encode($holder->try('another event', 600)));
            } catch (LockdException) {
                self::assertCount(1, $scheduler->holders());
            }
            $this->server->startAgain();
            $isHeld = fn (): bool => Client::connect($this->server->tcp())->inspect('event')->isHeld();
            Deadline::until('the session is resumed', $isHeld);
            self::assertFalse((new HolderProcess($separate()))->try('event', 600));
            unset($holder);
            $this->server->restartCleanly();
            Deadline::until('the session is resumed', $isHeld);
            self::assertNotSame([], $scheduler->holders());
        } finally {
            $scheduler->kill();
        }
    }

    /** The programs that hold it too would not have the new connection. */
    public function testALockThatProgramsInheritDoesNotResume(): void
    {
        $config = ['lockd' => ['url' => $this->url(), 'scheduler' => true]];
        $schedule = Application::with($config)->make(Schedule::class);
        $event = $schedule->exec('true')->withoutOverlapping();
        self::assertTrue($event->mutex->create($event));
        $this->server->restartCleanly();
        self::assertFalse($event->mutex->exists($event));
        $lock = Client::connectAndAcquire($this->server->tcp(), 'kept', 0.0, resume: true);
        self::assertNotNull($lock);
        $lock->keepForChildren();
        $this->server->restartCleanly();
        self::assertFalse($lock->isHeld(30.0));
        self::assertSame(SessionState::Lost, $lock->state());
    }
}
