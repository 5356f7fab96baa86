<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Illuminate\Cache\CacheManager;
use Illuminate\Console\CommandMutex;
use Illuminate\Console\Events\ScheduledTaskFinished;
use Illuminate\Console\Scheduling\EventMutex;
use Illuminate\Console\Scheduling\SchedulingMutex;
use Illuminate\Contracts\Config\Repository;
use Illuminate\Contracts\Container\Container;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Events\Dispatcher;
use Illuminate\Support\ServiceProvider;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;

/**
 * Registers lockd in a Laravel application: a {@see LockdLockProvider}, the cache driver `lockd`
 * with a store of that name, and, if the settings say so, the locks of the scheduler and of
 * isolated commands. Nothing connects to the server before a lock is needed.
 */
final class LockdServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $this->mergeConfigFrom(__DIR__ . '/config.php', 'lockd');
        $config = $this->config();
        if (!$config->has('cache.stores.lockd')) {
            $config->set('cache.stores.lockd', ['driver' => 'lockd']);
        }
        $this->app->singleton(LockdLockProvider::class, fn () => $this->provider([]));
        $this->app->singleton(SeparateLocks::class, fn () => new SeparateLocks(...$this->server([])));
        if ($this->isWanted('scheduler')) {
            $this->registerScheduler();
        }
        if ($this->isWanted('commands') && interface_exists(CommandMutex::class)) {
            $this->app->singleton(CommandMutex::class, static fn (Container $app) => new LockdCommandMutex(
                self::make($app, SeparateLocks::class),
            ));
        }
    }

    public function boot(): void
    {
        $this->publishes([__DIR__ . '/config.php' => $this->app->basePath('config/lockd.php')], 'lockd-config');
        $make = $this->store(...);
        $this->callAfterResolving('cache', static function ($cache) use ($make): void {
            /** @var CacheManager $cache */
            // Laravel binds this function to the cache manager.
            $cache->extend('lockd', function ($app, array $config) use ($cache, $make) {
                /** @var array<string, mixed> $config */
                return $cache->repository($make($config), $config);
            });
        });
    }

    /** Binds the mutexes of the scheduler. */
    private function registerScheduler(): void
    {
        $this->app->singleton(EventMutex::class, static fn (Container $app) => new LockdEventMutex(
            self::make($app, SeparateLocks::class),
            static function (LockdException $e) use ($app): void {
                self::make($app, ExceptionHandler::class)->report($e);
            },
        ));
        $this->app->singleton(SchedulingMutex::class, fn (Container $app) => new LockdSchedulingMutex(
            self::make($app, SeparateLocks::class),
            new HolderProcess(self::make($app, SeparateLocks::class)),
            Settings::minutes('late_minutes', $this->setting('late_minutes')),
        ));
        $this->callAfterResolving('events', static function ($events): void {
            /** @var Dispatcher $events */
            // For a command in the background this says that it has been started.
            $events->listen(ScheduledTaskFinished::class, static function (ScheduledTaskFinished $of): void {
                if ($of->task->mutex instanceof LockdEventMutex) {
                    $of->task->mutex->started($of->task);
                }
            });
        });
    }

    /**
     * The store for the driver `lockd`.
     *
     * @param array<string, mixed> $config of the store
     * @throws InvalidArgumentException
     */
    private function store(array $config): LockdStore
    {
        $stores = $this->config()->get('cache.stores', []);
        $isOurs = static fn (mixed $name): bool => ($stores[$name]['driver'] ?? null) === 'lockd';
        $name = $config['store'] ?? null;
        // Laravel 11 and later add the store's own name where no other is given.
        if ($name === null || $isOurs($name)) {
            $name = $this->config()->get('cache.default');
        }
        if ($isOurs($name)) {
            throw new InvalidArgumentException(
                "the cache store \"$name\" has the driver lockd, which keeps no values: name the store that keeps "
                . "them, as in 'lockd' => ['driver' => 'lockd', 'store' => 'redis'] in config/cache.php"
            );
        }
        /** @var ?string $name */
        /** @var CacheManager $cache */
        $cache = $this->app->make('cache');
        $values = $cache->store($name)->getStore();
        $locks = array_intersect_key($config, ['url' => 1, 'owner' => 1, 'timeout' => 1, 'prefix' => 1]) === []
            ? self::make($this->app, LockdLockProvider::class)
            : $this->provider($config);
        return method_exists($values, 'tags') ? new LockdTaggedStore($values, $locks) : new LockdStore($values, $locks);
    }

    /** @param array<string, mixed> $config settings that replace those of config/lockd.php */
    private function provider(array $config): LockdLockProvider
    {
        return new LockdLockProvider(...$this->server($config));
    }

    /**
     * @param array<string, mixed> $config
     * @return array{string, ?string, float, string} the address, the owner, the time limit and the
     *     prefix of names
     * @throws InvalidArgumentException
     */
    private function server(array $config): array
    {
        $app = $this->config();
        $owner = $config['owner'] ?? $this->setting('owner') ?? $app->get('app.name');
        $prefix = $config['prefix'] ?? $this->setting('prefix') ?? $app->get('cache.prefix');
        return [
            (string) ($config['url'] ?? $this->setting('url')),
            $owner === null ? null : (string) $owner,
            Settings::seconds('timeout', $config['timeout'] ?? $this->setting('timeout')),
            (string) $prefix,
        ];
    }

    /** @throws InvalidArgumentException */
    private function isWanted(string $what): bool
    {
        $config = $this->config();
        $default = $config->get('cache.stores.' . (string) $config->get('cache.default') . '.driver') === 'lockd';
        return Settings::isOn($what, $this->setting($what)) ?? $default;
    }

    private function setting(string $name): mixed
    {
        return $this->config()->get("lockd.$name");
    }

    private function config(): Repository
    {
        /** @var Repository */
        return $this->app->make('config');
    }

    /**
     * What the container has for a class or an interface, with its type.
     *
     * @template T of object
     * @param class-string<T> $class
     * @return T
     */
    private static function make(Container $app, string $class): object
    {
        /** @var T */
        return $app->make($class);
    }
}
