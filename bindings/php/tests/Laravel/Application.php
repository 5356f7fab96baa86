<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Illuminate\Cache\CacheManager;
use Illuminate\Config\Repository;
use Illuminate\Console\Scheduling\Schedule;
use Illuminate\Container\Container;
use Illuminate\Contracts\Cache\Factory;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Events\Dispatcher as DispatcherContract;
use Illuminate\Events\Dispatcher;
use Illuminate\Filesystem\Filesystem;
use Illuminate\Support\Facades\Facade;
use Lockd\Laravel\LockdServiceProvider;

/**
 * The parts of a Laravel application that the scheduler, the cache and a service provider need,
 * because Debian has Laravel's components alone. The settings are given, as config files would.
 */
final class Application extends Container
{
    /** @param array<string, mixed> $config the application's settings */
    public static function with(array $config): self
    {
        if (!function_exists('windows_os')) {
            // Debian's packages; Composer has loaded them otherwise.
            foreach (['Cache', 'Config', 'Console', 'Events', 'Filesystem', 'Queue'] as $component) {
                require_once "Illuminate/$component/autoload.php";
            }
            require_once 'Cron/autoload.php';
        }
        if (!interface_exists(\Illuminate\Console\CommandMutex::class)) {
            require_once __DIR__ . '/contracts/CommandMutex.php';
        }
        $app = new self();
        Container::setInstance($app);
        Facade::clearResolvedInstances();
        Facade::setFacadeApplication($app);
        $app->instance('config', new Repository(array_replace_recursive(self::DEFAULTS, $config)));
        $app->instance('files', new Filesystem());
        $app->instance('events', new Dispatcher($app));
        $app->alias('events', DispatcherContract::class);
        $app->singleton('cache', static fn ($app) => new CacheManager($app));
        $app->alias('cache', Factory::class);
        $app->singleton('cache.store', static fn ($app) => $app['cache']->store());
        $app->alias('cache.store', \Illuminate\Contracts\Cache\Repository::class);
        $app->singleton(Schedule::class);
        $app->singleton(ExceptionHandler::class, Reports::class);
        $provider = new LockdServiceProvider($app);
        $provider->register();
        $provider->boot();
        return $app;
    }

    private const DEFAULTS = [
        'app' => ['name' => 'Shop'],
        'cache' => [
            'default' => 'array',
            'prefix' => 'shop_cache_',
            'stores' => ['array' => ['driver' => 'array']],
        ],
    ];

    public function basePath(string $path = ''): string
    {
        return __DIR__ . ($path === '' ? '' : "/$path");
    }

    public function isDownForMaintenance(): bool
    {
        return false;
    }

    public function environment(): string
    {
        return 'testing';
    }

    public function runningUnitTests(): bool
    {
        return false;
    }
}
