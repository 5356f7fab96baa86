<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Lockd\Client;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/**
 * Two servers run the same schedule each minute, and one of them is killed at a random moment.
 * A minute lasts as long as the two need for it.
 */
final class TwoSchedulersTest extends TestCase
{
    private const MINUTES = 20;

    /**
     * Each event writes when it runs, and notices another run of the same event: then its directory
     * is there already.
     */
    private const EVENTS = '
        foreach (["front" => 0, "back" => 1] as $name => $background) {
            $work = "mkdir $dir/$name || echo $name overlaps >> $dir/out; "
                . "echo $name at \$APP_NOW >> $dir/out; sleep 0.1; rmdir $dir/$name";
            $event = $schedule->exec("{ $work; }")->everyMinute()->withoutOverlapping()->onOneServer();
            $background && $event->runInBackground();
        }';

    public function testNothingRunsTwiceAndNothingIsStuck(): void
    {
        $server = new Server();
        $client = Client::connect($server->tcp());
        $scheduler = new Scheduler($server, self::EVENTS);
        touch($server->directory() . '/out');
        for ($minute = 0; $minute < self::MINUTES; $minute++) {
            // Their clocks differ; the tests do not depend on which of them is ahead.
            $both = [
                $scheduler->start(sprintf('2030-01-01 12:%02d:00', $minute)),
                $scheduler->start(sprintf('2030-01-01 12:%02d:03', $minute)),
            ];
            if ($minute % 4 !== 3) {
                usleep(random_int(0, 500_000));
                $both[array_rand($both)]->kill();
            }
            foreach ($both as $run) {
                $run->end();
            }
        }
        Deadline::until('no event runs', static fn (): bool =>
            preg_grep('#schedule-[0-9a-f]{40}$#', array_map(
                static fn (object $lock): string => $lock->name,
                [...$client->list('shop_cache_framework/')],
            )) === []);
        $lines = file($server->directory() . '/out', FILE_IGNORE_NEW_LINES);
        self::assertSame([], preg_grep('/overlaps/', $lines));
        $runs = array_count_values(preg_replace('/:\d\d$/', '', $lines));
        self::assertSame([], array_filter($runs, static fn (int $times): bool => $times > 1));
        // After all that, both events run.
        $scheduler->start('2030-01-01 13:00:00')->end();
        Deadline::until('both events have run', static fn (): bool =>
            count(preg_grep('/ 13:00/', file($server->directory() . '/out'))) === 2);
    }
}
