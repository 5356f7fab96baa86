<?php

/**
 * The console of an application with a schedule: what `php artisan` is in Laravel. The environment
 * has its settings, its schedule and what time it is.
 */

declare(strict_types=1);

use Illuminate\Console\Application as Console;
use Illuminate\Console\Scheduling\Schedule;
use Illuminate\Console\Scheduling\ScheduleFinishCommand;
use Illuminate\Console\Scheduling\ScheduleRunCommand;
use Illuminate\Support\Carbon;
use Lockd\Tests\Laravel\Application;

require dirname(__DIR__) . '/bootstrap.php';

define('ARTISAN_BINARY', basename(__FILE__));

function base_path(): string
{
    return __DIR__;
}

$app = Application::with((array) json_decode((string) getenv('APP_CONFIG'), true));
Carbon::setTestNow((string) getenv('APP_NOW'));
$app->afterResolving(Schedule::class, require getenv('APP_SCHEDULE'));
$console = new Console($app, $app->make('events'), 'test');
$console->resolveCommands([ScheduleRunCommand::class, ScheduleFinishCommand::class]);
exit($console->run());
