<?php

declare(strict_types=1);

namespace Lockd\Tests\WordPress;

use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use RuntimeException;

/** A process with a run of the site's cron events: see run.php. It ends with the object. */
final class Run
{
    /** @var resource */
    private $process;
    /** @var array<int, resource> */
    private array $pipes = [];

    /**
     * @param string $arguments `wp-cron`, `command` or `old-command`, and the command's options
     * @param string $options what follows the server's address
     */
    public function __construct(Server $server, string $database, string $arguments, string $options = '')
    {
        $log = $server->directory() . '/errors';
        $url = $server->tcp() . $options;
        $command = [PHP_BINARY, '-d', "error_log=$log", __DIR__ . '/run.php', $url, $database];
        $streams = [['pipe', 'r'], ['pipe', 'w'], STDERR];
        $this->process = proc_open([...$command, ...explode(' ', $arguments)], $streams, $this->pipes)
            ?: throw new RuntimeException('cannot start PHP');
        stream_set_timeout($this->pipes[1], 30);
    }

    /** The next line that it prints. */
    public function hear(): string
    {
        return rtrim((string) fgets($this->pipes[1]), "\n");
    }

    /** Lets it go on from where it waits. */
    public function goOn(): self
    {
        fwrite($this->pipes[0], "\n");
        return $this;
    }

    /** @return array{string, int} what else it prints, and its exit status */
    public function end(): array
    {
        @fwrite($this->pipes[0], "\n\n\n");
        $printed = (string) stream_get_contents($this->pipes[1]);
        $status = [];
        Deadline::until('the run ends', function () use (&$status): bool {
            $status = proc_get_status($this->process);
            return !$status['running'];
        });
        return [$printed, $status['exitcode']];
    }

    public function __destruct()
    {
        proc_terminate($this->process, SIGKILL);
        proc_close($this->process);
    }
}
