<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Illuminate\Console\CommandMutex;
use Illuminate\Console\Scheduling\EventMutex;
use Illuminate\Console\Scheduling\SchedulingMutex;
use Illuminate\Support\ServiceProvider;
use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Laravel\LockdServiceProvider;
use Lockd\Tests\Support\Nothing;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Standby;
use PHPUnit\Framework\TestCase;

/** What the package registers in an application, and which settings change it. */
final class LockdServiceProviderTest extends TestCase
{
    private const MUTEXES = [EventMutex::class, SchedulingMutex::class, CommandMutex::class];

    protected function tearDown(): void
    {
        foreach (['URL', 'OWNER', 'PREFIX', 'SCHEDULER', 'COMMANDS', 'TIMEOUT', 'LATE_MINUTES'] as $name) {
            unset($_ENV["LOCKD_$name"]);
        }
    }

    /** @return list<bool> */
    private static function boundMutexes(array $config): array
    {
        return array_map(Application::with($config)->bound(...), self::MUTEXES);
    }

    public function testTheMutexesAreBoundOnlyIfTheyAreWanted(): void
    {
        self::assertSame([false, false, false], self::boundMutexes([]));
        self::assertSame([true, true, false], self::boundMutexes(['lockd' => ['scheduler' => true]]));
        self::assertSame([false, false, true], self::boundMutexes(['lockd' => ['commands' => true]]));
        $default = ['cache' => ['default' => 'lockd']];
        self::assertSame([true, true, true], self::boundMutexes($default));
        self::assertSame([false, false, true], self::boundMutexes($default + ['lockd' => ['scheduler' => false]]));
    }

    public function testNothingConnectsBeforeALockIsNeeded(): void
    {
        $app = Application::with(['lockd' => ['url' => 'tcp://127.0.0.1:1', 'scheduler' => true]]);
        array_map($app->make(...), [LockdLockProvider::class, EventMutex::class, SchedulingMutex::class]);
        self::assertFalse($app['cache']->store('lockd')->has('color'));
    }

    public function testTheSettingsHaveDefaults(): void
    {
        $config = Application::with([])['config'];
        self::assertSame('tcp://127.0.0.1:20934', $config['lockd.url']);
        self::assertSame(['driver' => 'lockd'], $config['cache.stores.lockd']);
        $mine = ['driver' => 'lockd', 'store' => 'array'];
        $config = Application::with(['cache' => ['stores' => ['lockd' => $mine]]])['config'];
        self::assertSame($mine, $config['cache.stores.lockd']);
    }

    public function testTheSettingsComeFromTheEnvironment(): void
    {
        $server = new Server();
        $client = Client::connect($server->tcp());
        $_ENV['LOCKD_URL'] = $server->tcp();
        $app = Application::with([]);
        self::assertTrue($app->make(LockdLockProvider::class)->lock('report')->get());
        $lock = [...$client->list()][0];
        self::assertSame(['shop_cache_report', 'Shop'], [$lock->name, $lock->holders[0]->owner]);
        $app->make(LockdLockProvider::class)->lock('report')->forceRelease();

        $_ENV += ['LOCKD_PREFIX' => '', 'LOCKD_OWNER' => 'cron', 'LOCKD_SCHEDULER' => 'true', 'LOCKD_TIMEOUT' => '2.5'];
        $app = Application::with([]);
        self::assertTrue($app->bound(EventMutex::class));
        self::assertTrue($app->make(LockdLockProvider::class)->lock('report')->get());
        $lock = [...$client->list()][0];
        self::assertSame(['report', 'cron'], [$lock->name, $lock->holders[0]->owner]);
        $app->make(LockdLockProvider::class)->funnel('gpu')->limit(2)->then(static function () use ($client): void {
            self::assertSame(2, $client->inspect('gpu')->limit);
        });
    }

    public function testTheServerMayHaveSeveralPlaces(): void
    {
        [$server, $standby, $nothing] = [new Server(), Standby::start(), new Nothing()];
        $_ENV['LOCKD_URL'] = "tcp://$standby->place,$nothing->place,{$server->place()}?resume";
        $app = Application::with([]);
        $lock = $app->make(LockdLockProvider::class)->lock('report');
        self::assertTrue($lock->get());
        self::assertCount(1, [...Client::connect($server->tcp())->list()]);
    }

    public function testASettingIsOnOrOffByAnyOfItsWords(): void
    {
        foreach (['true', '(true)', 'on', 'On', 'yes', '1'] as $on) {
            $_ENV['LOCKD_SCHEDULER'] = $_ENV['LOCKD_COMMANDS'] = $on;
            self::assertSame([true, true, true], self::boundMutexes([]), $on);
        }
        foreach (['false', '(false)', 'off', 'OFF', 'no', '0', ''] as $off) {
            $_ENV['LOCKD_SCHEDULER'] = $_ENV['LOCKD_COMMANDS'] = $off;
            self::assertSame([false, false, false], self::boundMutexes(['cache' => ['default' => 'lockd']]), $off);
        }
        $_ENV['LOCKD_SCHEDULER'] = $_ENV['LOCKD_COMMANDS'] = 'null';
        self::assertSame([true, true, true], self::boundMutexes(['cache' => ['default' => 'lockd']]));
    }

    /** @return iterable<array{string, string}> */
    public static function mistakes(): iterable
    {
        $all = [
            'SCHEDULER' => ['of', '2'],
            'COMMANDS' => ['maybe'],
            'TIMEOUT' => ['soon', '', '0', '-1', '1e999', '5 s'],
            'LATE_MINUTES' => ['many', '', '0', '2.5', '1440'],
        ];
        foreach ($all as $name => $values) {
            foreach ($values as $value) {
                yield "$name=$value" => ["LOCKD_$name", $value];
            }
        }
    }

    /** @dataProvider mistakes */
    public function testASettingThatIsNotUnderstoodIsNamed(string $name, string $value): void
    {
        $_ENV += ['LOCKD_SCHEDULER' => 'true', 'LOCKD_COMMANDS' => 'true'];
        $_ENV[$name] = $value;
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessageMatches("/^$name .* '" . preg_quote($value) . "'$/");
        Application::with([])->make(SchedulingMutex::class);
    }

    public function testTheTimeLimitOfAStoreIsChecked(): void
    {
        $app = Application::with(['cache' => ['stores' => ['lockd' => ['driver' => 'lockd', 'timeout' => 'soon']]]]);
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage("'timeout'");
        $app['cache']->store('lockd');
    }

    public function testTheSettingsArePublished(): void
    {
        $app = Application::with([]);
        $paths = ServiceProvider::pathsToPublish(LockdServiceProvider::class, 'lockd-config');
        self::assertSame([$app->basePath('config/lockd.php')], array_values($paths));
        self::assertFileExists(array_keys($paths)[0]);
    }
}
