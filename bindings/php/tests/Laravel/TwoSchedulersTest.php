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
    private const MINUTES = 12;

    /**
     * Each event writes when it runs, and notices another run of the same event: then its directory
     * is there already. The first two run on one server only.
     */
    private const EVENTS = '
        foreach (["front", "back", "anywhere-front", "anywhere-back"] as $name) {
            $work = "mkdir $dir/$name || echo $name overlaps >> $dir/out; "
                . "echo $name at \$APP_NOW >> $dir/out; sleep 0.1; rmdir $dir/$name";
            $event = $schedule->exec("{ $work; }")->everyMinute()->withoutOverlapping();
            str_starts_with($name, "anywhere") || $event->onOneServer();
            str_ends_with($name, "back") && $event->runInBackground();
        }';

    private Server $server;

    public function testNothingRunsTwiceAndNothingIsStuck(): void
    {
        $this->server = new Server();
        $scheduler = new Scheduler($this->server, self::EVENTS);
        touch($this->server->directory() . '/out');
        for ($minute = 0; $minute < self::MINUTES; $minute++) {
            // Their clocks differ, and either of them may be ahead.
            $first = $scheduler->start(sprintf('2030-01-01 12:%02d:00', $minute));
            usleep(random_int(0, 600_000));
            $second = $scheduler->start(sprintf('2030-01-01 12:%02d:03', $minute));
            if ($minute % 4 !== 3) {
                usleep(random_int(0, 600_000));
                [$first, $second][random_int(0, 1)]->kill();
            }
            $first->end();
            $second->end();
        }
        $this->awaitTheEndOfAllEvents();
        self::assertSame([], preg_grep('/overlaps/', $this->output()));
        $onOneServer = preg_grep('/^(front|back) at/', $this->output());
        $runs = array_count_values(preg_replace('/:\d\d$/', '', $onOneServer));
        self::assertSame([], array_filter($runs, static fn (int $times): bool => $times > 1));
        // After all that, everything runs.
        $scheduler->start('2030-01-01 13:00:00')->end();
        $this->awaitTheEndOfAllEvents();
        self::assertCount(4, preg_grep('/ 13:00/', $this->output()));
    }

    private function awaitTheEndOfAllEvents(): void
    {
        $client = Client::connect($this->server->tcp());
        Deadline::until('no event runs', static function () use ($client): bool {
            $names = array_map(static fn (object $lock): string => $lock->name, [...$client->list()]);
            return preg_grep('#/schedule-[0-9a-f]{40}$#', $names) === [];
        });
    }

    /** @return list<string> */
    private function output(): array
    {
        return file($this->server->directory() . '/out', FILE_IGNORE_NEW_LINES) ?: [];
    }
}
