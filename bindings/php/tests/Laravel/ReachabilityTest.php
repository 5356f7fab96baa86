<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Closure;
use DateTimeImmutable;
use Illuminate\Console\Command;
use Illuminate\Console\CommandMutex;
use Illuminate\Console\Scheduling\Schedule;
use Illuminate\Support\Carbon;
use Lockd\Exception\ConnectException;
use Lockd\Exception\LockdException;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Laravel\SeparateLocks;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** How often a server is asked that does not answer. */
final class ReachabilityTest extends TestCase
{
    /** @var resource a server that accepts connections and says nothing */
    private $listener;
    private string $url;

    protected function setUp(): void
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        self::assertIsResource($listener);
        $this->listener = $listener;
        $this->url = 'tcp://' . stream_socket_get_name($listener, false);
    }

    protected function tearDown(): void
    {
        Carbon::setTestNow();
    }

    /** How many connections have been made since the last call. */
    private function connections(): int
    {
        $connections = 0;
        while (@stream_socket_accept($this->listener, 0.0) !== false) {
            $connections++;
        }
        return $connections;
    }

    /** @param Closure(): mixed $ask */
    private static function assertNoServer(Closure $ask): LockdException
    {
        try {
            $ask();
        } catch (ConnectException $e) {
            return $e;
        }
        self::fail('there is no server');
    }

    public function testAllLocksOfAProcessWaitOnceForAServerThatDoesNotAnswer(): void
    {
        $settings = ['url' => $this->url, 'timeout' => 1, 'scheduler' => true, 'commands' => true];
        $app = Application::with(['lockd' => $settings]);
        $schedule = $app->make(Schedule::class);
        foreach (range(1, 4) as $number) {
            $event = $schedule->call(static fn (): bool => true)->name("event $number")->withoutOverlapping();
            // Laravel asks whether the event is running, and then runs it.
            self::assertTrue($event->filtersPass($app));
            self::assertNoServer(static fn () => $event->run($app));
        }
        $locks = $app->make(LockdLockProvider::class);
        $e = self::assertNoServer($locks->lock('report')->get(...));
        self::assertStringContainsString('not asked again', $e->getMessage());
        self::assertNoServer(static fn () => $locks->lock('report')->block(1));
        self::assertNoServer($locks->lock('report')->isLocked(...));
        self::assertNoServer(static fn () => $locks->funnel('gpu')->limit(2)->then(static fn () => null));
        self::assertNoServer(static fn () => $app['cache']->store('lockd')->lock('report')->get());
        $command = (new Command())->setName('report:write');
        self::assertNoServer(static fn () => $app->make(CommandMutex::class)->create($command));
        $at = new DateTimeImmutable('2030-01-01 12:00:05');
        Carbon::setTestNow($at);
        self::assertNoServer(static fn () => $schedule->serverShouldRun($schedule->exec('true'), $at));
        self::assertSame(1, $this->connections());
    }

    public function testWhatTheHolderOfLocksFindsIsRemembered(): void
    {
        $app = Application::with(['lockd' => ['url' => $this->url, 'timeout' => 1, 'scheduler' => true]]);
        $schedule = $app->make(Schedule::class);
        $at = new DateTimeImmutable('2030-01-01 12:00:05');
        Carbon::setTestNow($at);
        self::assertNoServer(static fn () => $schedule->serverShouldRun($schedule->exec('true'), $at));
        self::assertNoServer($app->make(LockdLockProvider::class)->lock('report')->get(...));
        self::assertSame(1, $this->connections());
    }

    public function testAfterAWhileTheServerIsAskedAgain(): void
    {
        $lock = (new LockdLockProvider($this->url, null, 0.02))->lock('report');
        $connections = 0;
        Deadline::until('the server is asked again', function () use ($lock, &$connections): bool {
            self::assertNoServer($lock->get(...));
            $connections += $this->connections();
            return $connections >= 2;
        });
    }

    public function testAServerThatRefusesAtOnceIsAskedAgainAtOnce(): void
    {
        $server = new Server();
        $lock = (new LockdLockProvider($server->tcp()))->lock('report');
        $server->kill();
        self::assertNoServer($lock->get(...));
        $server->startAgain();
        self::assertTrue($lock->get());
    }

    public function testAServerThatStopsAnsweringOnAConnectionIsRemembered(): void
    {
        $server = new Server();
        $locks = new LockdLockProvider($server->tcp(), null, 0.5);
        self::assertTrue($locks->lock('report')->get());
        $server->pause();
        try {
            $locks->lock('another')->get();
            self::fail('the server hangs');
        } catch (LockdException) {
            $e = self::assertNoServer($locks->lock('another')->get(...));
            self::assertStringContainsString('not asked again', $e->getMessage());
        }
    }

    public function testTheLocksOfAnotherServerAreGranted(): void
    {
        $server = new Server();
        $locks = new SeparateLocks("$this->url,{$server->tcp()}", null, 1.0, '');
        [$granted, $refused] = [0, 0];
        $held = [];
        for ($number = 0; $granted < 2 || $refused < 2; $number++) {
            try {
                self::assertNotNull($held[] = $locks->tryToAcquire("name $number"));
                $granted++;
            } catch (ConnectException) {
                $refused++;
            }
        }
        self::assertSame(1, $this->connections());
    }
}
