<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Lockd\Tests\Support\Deadline;
use RuntimeException;

/** A running `schedule:run`. */
final class ScheduleRun
{
    public readonly int $pid;
    /** @var ?resource */
    private $process;
    /** @var resource */
    private $output;
    private string $printed = '';

    /**
     * @param list<string> $command
     * @param array<string, string> $environment
     */
    public function __construct(array $command, array $environment)
    {
        $streams = [['null'], ['pipe', 'w'], ['redirect', 1]];
        $process = proc_open($command, $streams, $pipes, null, $environment);
        if ($process === false) {
            throw new RuntimeException("cannot start $command[0]");
        }
        $this->process = $process;
        $this->output = $pipes[1];
        stream_set_blocking($this->output, false);
        $this->pid = proc_get_status($process)['pid'];
    }

    /**
     * Waits until it has ended, and until all that could still write to its output have ended.
     *
     * @return string what it has printed
     */
    public function end(): string
    {
        Deadline::until('schedule:run has ended', function (): bool {
            $this->printed .= is_resource($this->output) ? stream_get_contents($this->output) : '';
            return !is_resource($this->output) || feof($this->output);
        });
        $this->close();
        return $this->printed;
    }

    public function kill(): void
    {
        posix_kill($this->pid, SIGKILL);
        $this->close();
    }

    private function close(): void
    {
        if ($this->process !== null) {
            proc_close($this->process);
            $this->process = null;
        }
    }

    public function __destruct()
    {
        if ($this->process !== null) {
            $this->kill();
        }
    }
}
