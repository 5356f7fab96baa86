<?php

declare(strict_types=1);

namespace Lockd\Tests\WordPress;

use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Runs of the site's cron events, by wp-cron.php and by WP-CLI, in processes of their own. */
final class CronRunTest extends TestCase
{
    private const GOES_ON = 'nother run of this site\'s cron events goes on';

    private Server $server;

    public static function setUpBeforeClass(): void
    {
        require_once __DIR__ . '/stubs.php';
    }

    protected function setUp(): void
    {
        $this->server = new Server();
        file_put_contents($this->database(), '[]');
        $this->schedule('first', 'slow', 'last');
    }

    private function database(): string
    {
        return $this->server->directory() . '/database';
    }

    /** Schedules these events and no others. All are due, and the first one recurs. */
    private function schedule(string ...$hooks): void
    {
        $GLOBALS['database'] = $this->database();
        $GLOBALS['alloptions'] = ['cron' => '[]'];
        foreach ($hooks as $at => $hook) {
            wp_schedule_event(1000 + $at, $at === 0 ? 'hourly' : false, $hook, []);
        }
        $GLOBALS['database'] = '/dev/null';
        $GLOBALS['alloptions'] = null;
    }

    /** @return list<string> the hooks of the events in the database */
    private function scheduled(): array
    {
        $options = json_decode((string) file_get_contents($this->database()), true);
        return array_merge(...array_map('array_keys', array_values(json_decode($options['cron'], true))));
    }

    /** A run that is in the middle of its second event. */
    private function inTheMiddle(string $arguments): Run
    {
        $run = new Run($this->server, $this->database(), $arguments);
        self::assertSame(['begins', 'first', 'slow'], [$run->goOn()->hear(), $run->hear(), $run->hear()]);
        return $run;
    }

    /** @return array{string, int} */
    private function wholeRun(string $arguments): array
    {
        return (new Run($this->server, $this->database(), $arguments))->end();
    }

    private function errors(): string
    {
        return (string) @file_get_contents($this->server->directory() . '/errors');
    }

    /** @return iterable<string, array{string, string, string, int}> */
    public function secondRuns(): iterable
    {
        $busy = 'A' . self::GOES_ON . ": nothing was run.\n";
        $error = 'Error: a' . self::GOES_ON . ", so no cron event was run. Try again later.\n";
        foreach (['wp-cron', 'command due-now', 'old-command due-now'] as $first) {
            yield "$first, wp-cron" => [$first, 'wp-cron', "done\n", 0];
            yield "$first, command" => [$first, 'command due-now', $busy, 0];
            yield "$first, old command" => [$first, 'old-command due-now', $busy, 0];
            // Without --due-now it is a person who has named an event.
            yield "$first, named" => [$first, 'command', $error, 1];
        }
    }

    /** @dataProvider secondRuns */
    public function testASecondRunRunsNothing(string $first, string $second, string $prints, int $status): void
    {
        $run = $this->inTheMiddle($first);
        self::assertSame(["begins\n$prints", $status], $this->wholeRun($second));
        self::assertSame(["slow ends\nlast\ndone\n", 0], $run->end());
        self::assertSame(['first'], $this->scheduled());
        $this->schedule('last');
        self::assertSame("begins\nlast\ndone\n", $this->wholeRun($second)[0]);
        self::assertSame('', $this->errors());
    }

    /** @return iterable<string, array{string}> */
    public function runs(): iterable
    {
        foreach (['wp-cron', 'command due-now', 'old-command due-now', 'command'] as $run) {
            yield $run => [$run];
        }
    }

    /**
     * WordPress reads all options when it is loaded, and the run begins later.
     *
     * @dataProvider runs
     */
    public function testAnEventThatAnotherRunHasDoneMeanwhileIsNotRunAgain(string $arguments): void
    {
        $run = new Run($this->server, $this->database(), $arguments);
        self::assertSame('begins', $run->hear());
        self::assertSame("begins\nfirst\nslow\nslow ends\nlast\ndone\n", $this->wholeRun('wp-cron')[0]);
        $this->schedule('last');
        self::assertSame(["last\ndone\n", 0], $run->end());
    }

    /** @dataProvider runs */
    public function testARunThatHasLostItsLockStopsBeforeTheNextEvent(string $arguments): void
    {
        $run = $this->inTheMiddle($arguments);
        $this->server->restart();
        $lost = 'the lock was lost while cron events ran, so the events that were left have not been run';
        $says = str_contains($arguments, 'command') ? "Error: lockd: $lost\n" : '';
        self::assertSame(["slow ends\n$says", $says === '' ? 0 : 1], $run->end());
        self::assertStringContainsString("no lock \"shop/wp_/wp-cron\": $lost", $this->errors());
        self::assertSame(['last', 'first'], $this->scheduled());
        self::assertSame("begins\nlast\ndone\n", $this->wholeRun($arguments)[0]);
    }

    /** @dataProvider runs */
    public function testWithoutAServerNothingIsRun(string $arguments): void
    {
        $this->server->kill();
        [$printed, $status] = $this->wholeRun($arguments);
        if ($arguments === 'wp-cron') {
            self::assertSame(["begins\ndone\n", 0], [$printed, $status]);
        } else {
            $says = 'Error: lockd granted no lock, so no cron event was run: cannot connect to';
            self::assertStringContainsString($says, $printed);
            self::assertSame(1, $status);
        }
        self::assertSame(['first', 'slow', 'last'], $this->scheduled());
    }
}
