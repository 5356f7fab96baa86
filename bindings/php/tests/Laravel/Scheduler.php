<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;

/**
 * Runs the schedule of an application, in real processes, and finds all processes that come of it.
 * They end when this object is destroyed.
 */
final class Scheduler
{
    public readonly string $mark;
    private string $directory;

    /** @param string $events code that adds events to `$schedule`; `$dir` is a directory for it */
    public function __construct(private readonly Server $server, string $events)
    {
        $this->mark = bin2hex(random_bytes(8));
        $this->directory = $server->directory();
        $directory = var_export($this->directory, true);
        file_put_contents("$this->directory/schedule.php", "<?php
            return static function (\$schedule): void {
                \$dir = $directory;
                $events
            };");
    }

    /**
     * Starts `schedule:run`.
     *
     * @param string $now the time at which it starts
     */
    public function start(string $now = '2030-01-01 12:00:05'): ScheduleRun
    {
        $config = ['lockd' => ['url' => $this->server->tcp(), 'scheduler' => true]];
        $environment = [
            'PATH' => (string) getenv('PATH'),
            'APP_MARK' => $this->mark,
            'APP_CONFIG' => (string) json_encode($config),
            'APP_NOW' => $now,
            'APP_SCHEDULE' => "$this->directory/schedule.php",
        ];
        return new ScheduleRun([PHP_BINARY, __DIR__ . '/artisan.php', 'schedule:run'], $environment);
    }

    /**
     * The processes that have been started, by the schedulers too.
     *
     * @return array<int, string> the command lines, by process id
     */
    public function processes(): array
    {
        $found = [];
        foreach (glob('/proc/[0-9]*') ?: [] as $process) {
            if (str_contains((string) @file_get_contents("$process/environ"), "APP_MARK=$this->mark")) {
                $line = strtr((string) @file_get_contents("$process/cmdline"), "\0", ' ');
                // A process that has ended, and that nobody has waited for, has no command line.
                $line === '' || $found[(int) basename($process)] = $line;
            }
        }
        return $found;
    }

    /** @return list<int> the processes that hold the locks of onOneServer() */
    public function holders(): array
    {
        return array_keys(array_filter($this->processes(), static fn (string $line): bool =>
            str_contains($line, 'hold.php')));
    }

    /** Kills all processes. */
    public function kill(): void
    {
        Deadline::until('all processes have ended', function (): bool {
            $processes = array_keys($this->processes());
            foreach ($processes as $pid) {
                posix_kill($pid, SIGKILL);
            }
            return $processes === [];
        });
    }

    public function __destruct()
    {
        $this->kill();
    }
}
