<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Illuminate\Console\CommandMutex;
use Illuminate\Console\Events\ScheduledTaskFinished;
use Illuminate\Console\Scheduling\EventMutex;
use Illuminate\Console\Scheduling\SchedulingMutex;
use Illuminate\Contracts\Debug\ExceptionHandler;
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
        $config = $this->app->make('config');
        if (!$config->has('cache.stores.lockd')) {
            $config->set('cache.stores.lockd', ['driver' => 'lockd']);
        }
        $this->app->singleton(LockdLockProvider::class, fn () => $this->provider([]));
        $this->app->singleton(SeparateLocks::class, fn () => new SeparateLocks(...$this->server([])));
        if ($this->isWanted('scheduler')) {
            $this->registerScheduler();
        }
        if ($this->isWanted('commands') && interface_exists(CommandMutex::class)) {
            $this->app->singleton(CommandMutex::class, fn ($app) => new LockdCommandMutex(
                $app->make(SeparateLocks::class),
            ));
        }
    }

    public function boot(): void
    {
        $this->publishes([__DIR__ . '/config.php' => $this->app->basePath('config/lockd.php')], 'lockd-config');
        $make = fn (array $config): LockdStore => $this->store($config);
        $this->callAfterResolving('cache', static function ($cache) use ($make): void {
            // Laravel binds this function to the cache manager.
            $cache->extend('lockd', function ($app, array $config) use ($cache, $make) {
                return $cache->repository($make($config), $config);
            });
        });
    }

    /** Binds the mutexes of the scheduler. */
    private function registerScheduler(): void
    {
        $this->app->singleton(EventMutex::class, static fn ($app) => new LockdEventMutex(
            $app->make(SeparateLocks::class),
            static function (LockdException $e) use ($app): void {
                $app->make(ExceptionHandler::class)->report($e);
            },
        ));
        $this->app->singleton(SchedulingMutex::class, fn ($app) => new LockdSchedulingMutex(
            $app->make(SeparateLocks::class),
            new HolderProcess($app->make(SeparateLocks::class)),
            Settings::minutes('late_minutes', $this->setting('late_minutes')),
        ));
        $this->callAfterResolving('events', static function ($events): void {
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
        $stores = $this->app->make('config')->get('cache.stores', []);
        $isOurs = static fn (mixed $name): bool => ($stores[$name]['driver'] ?? null) === 'lockd';
        $name = $config['store'] ?? null;
        // Laravel 11 and later add the store's own name where no other is given.
        if ($name === null || $isOurs($name)) {
            $name = $this->app->make('config')->get('cache.default');
        }
        if ($isOurs($name)) {
            throw new InvalidArgumentException(
                "the cache store \"$name\" has the driver lockd, which keeps no values: name the store that keeps "
                . "them, as in 'lockd' => ['driver' => 'lockd', 'store' => 'redis'] in config/cache.php"
            );
        }
        $values = $this->app->make('cache')->store($name)->getStore();
        $locks = array_intersect_key($config, ['url' => 1, 'owner' => 1, 'timeout' => 1, 'prefix' => 1]) === []
            ? $this->app->make(LockdLockProvider::class)
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
        $app = $this->app->make('config');
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
        $config = $this->app->make('config');
        $default = $config->get('cache.stores.' . $config->get('cache.default') . '.driver') === 'lockd';
        return Settings::isOn($what, $this->setting($what)) ?? $default;
    }

    private function setting(string $name): mixed
    {
        return $this->app->make('config')->get("lockd.$name");
    }
}
