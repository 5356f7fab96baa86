<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use DateTimeImmutable;
use Illuminate\Console\Command;
use Illuminate\Console\CommandMutex;
use Illuminate\Console\Scheduling\Schedule;
use Illuminate\Support\Carbon;
use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use Symfony\Component\Process\Process;

/** What works with an address that asks for TLS, and what is refused. */
final class TlsTest extends TestCase
{
    private string $directory;
    private Server $server;
    private Application $app;

    protected function setUp(): void
    {
        $this->directory = sys_get_temp_dir() . '/lockd-php-' . bin2hex(random_bytes(6));
        mkdir($this->directory, 0700);
        [$certificate, $key] = ["$this->directory/cert.pem", "$this->directory/key.pem"];
        (new Process(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
            '-days', '2', '-subj', '/CN=lockd', '-addext', 'subjectAltName=IP:127.0.0.1', '-addext',
            'basicConstraints=critical,CA:FALSE', '-keyout', $key, '-out', $certificate]))->mustRun();
        $this->server = new Server(
            ['--listen', 'message+tls://127.0.0.1:0', '--tls-cert', $certificate, '--tls-key', $key]
        );
        Deadline::until('it listens with TLS', function () use (&$port): bool {
            return preg_match('#listening on message\+tls://127\.0\.0\.1:(\d+)#', $this->server->log(), $port) === 1;
        });
        $url = "tls://127.0.0.1:$port[1]?ca=$certificate";
        $this->app = Application::with(['lockd' => ['url' => $url, 'scheduler' => true, 'commands' => true]]);
    }

    protected function tearDown(): void
    {
        Carbon::setTestNow();
        putenv('APP_MARK');
        array_map(unlink(...), glob("$this->directory/*") ?: []);
        rmdir($this->directory);
    }

    private function holdersOf(string $name): int
    {
        return Client::connect($this->server->tcp())->inspect("shop_cache_$name")->holders;
    }

    public function testLocksAndFunnelsWork(): void
    {
        $lock = $this->app['cache']->store('lockd')->lock('report');
        self::assertTrue($lock->get());
        self::assertSame([true, 1], [$lock->isOwnedByCurrentProcess(), $this->holdersOf('report')]);
        self::assertTrue($lock->release());
    }

    public function testTheLockOfACommandThatWouldNotInheritItIsRefused(): void
    {
        $schedule = $this->app->make(Schedule::class);
        foreach ([$schedule->exec('true'), $schedule->exec('true')->runInBackground()] as $event) {
            try {
                $event->mutex->create($event->withoutOverlapping());
                self::fail('the command would run without the lock');
            } catch (InvalidArgumentException $e) {
                self::assertStringContainsString('LOCKD_URL begins with tls://', $e->getMessage());
            }
            self::assertSame(0, $this->holdersOf($event->mutexName()));
        }
    }

    public function testTheLockOfAClosureWorks(): void
    {
        $event = $this->app->make(Schedule::class)->call(static fn (): bool => true)->name('closure');
        self::assertTrue($event->mutex->create($event));
        self::assertSame([true, 1], [$event->mutex->exists($event), $this->holdersOf($event->mutexName())]);
        self::assertFalse($event->mutex->create($event));
        $event->mutex->forget($event);
        self::assertFalse($event->mutex->exists($event));
    }

    public function testOneServerRunsAnEvent(): void
    {
        $scheduler = new Scheduler($this->server, '');
        putenv("APP_MARK=$scheduler->mark");
        $schedule = $this->app->make(Schedule::class);
        $at = new DateTimeImmutable('2030-01-01 12:00:05');
        Carbon::setTestNow($at);
        $event = $schedule->exec('true');
        self::assertSame(
            [true, false],
            [$schedule->serverShouldRun($event, $at), $schedule->serverShouldRun($event, $at)]
        );
        self::assertSame(1, $this->holdersOf($event->mutexName() . '1200'));
    }

    public function testIsolatedCommandsWork(): void
    {
        $mutex = $this->app->make(CommandMutex::class);
        $command = (new Command())->setName('report:write');
        self::assertSame([true, false], [$mutex->create($command), $mutex->create($command)]);
        self::assertSame([true, 1], [$mutex->exists($command), $this->holdersOf('framework/command-report:write')]);
        self::assertTrue($mutex->forget($command));
        self::assertFalse($mutex->exists($command));
    }
}
