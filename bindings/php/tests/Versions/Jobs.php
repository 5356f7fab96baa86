<?php

declare(strict_types=1);

namespace Lockd\Tests\Versions;

/**
 * Processes that run a few at a time, because tests mostly wait. Knows nothing of what they do.
 */
final class Jobs
{
    private const AT_A_TIME = 6;

    /** @var array<string, callable(string $log): resource> what starts each */
    private array $jobs = [];
    /** @var array<string, array{resource, string}> the process and its log */
    private array $running = [];

    /** @param callable(string $log): resource $start starts the process, with its output in that file */
    public function add(string $name, callable $start): void
    {
        $this->jobs[$name] = $start;
    }

    /** @return array<string, array{int, string}> the exit status and the output of each */
    public function run(): array
    {
        $results = [];
        foreach ($this->jobs as $name => $start) {
            $results += $this->ended(self::AT_A_TIME - 1);
            $log = (string) tempnam(sys_get_temp_dir(), 'lockd-versions-');
            $this->running[$name] = [$start($log), $log];
        }
        return $results + $this->ended(0);
    }

    /**
     * Waits until no more than so many run.
     *
     * @return array<string, array{int, string}>
     */
    private function ended(int $most): array
    {
        $results = [];
        while (true) {
            foreach ($this->running as $name => [$process, $log]) {
                $status = proc_get_status($process);
                if (!$status['running']) {
                    $results[$name] = [$status['exitcode'], (string) file_get_contents($log)];
                    proc_close($process);
                    unlink($log);
                    unset($this->running[$name]);
                }
            }
            if (count($this->running) <= $most) {
                return $results;
            }
            usleep(20000);
        }
    }
}
