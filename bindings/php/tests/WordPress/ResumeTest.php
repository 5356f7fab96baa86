<?php

declare(strict_types=1);

namespace Lockd\Tests\WordPress;

use Lockd\Tests\Support\Server;
use Lockd\WordPress\Locks;
use PHPUnit\Framework\TestCase;

/** The locks of a site where the address asks for sessions that resume. */
final class ResumeTest extends TestCase
{
    public function testARunOfCronEventsGoesOnAfterARestart(): void
    {
        require_once __DIR__ . '/stubs.php';
        $server = new Server(remembers: true);
        $database = $server->directory() . '/database';
        file_put_contents($database, '[]');
        $GLOBALS['database'] = $database;
        $GLOBALS['alloptions'] = ['cron' => '[]'];
        foreach (['first', 'slow', 'last'] as $at => $hook) {
            wp_schedule_event(1000 + $at, $at === 0 ? 'hourly' : false, $hook, []);
        }
        $GLOBALS['database'] = '/dev/null';
        $GLOBALS['alloptions'] = null;
        $run = new Run($server, $database, 'wp-cron', '?resume');
        self::assertSame(['begins', 'first', 'slow'], [$run->goOn()->hear(), $run->hear(), $run->hear()]);
        $server->restartCleanly();
        self::assertSame(['slow ends', 'last', 'done'], [$run->goOn()->hear(), $run->hear(), $run->hear()]);
    }
}
