<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/**
 * Shared by the tests of both drop-in classes: starts a server for each test, collects warnings and
 * runs other processes.
 */
abstract class CompatTestCase extends TestCase
{
    protected const COMPAT = __DIR__ . '/../../compat/';
    private const SCRIPTS = __DIR__ . '/scripts/';

    protected Server $server;
    /** @var list<string> the warnings since the last check */
    private array $warnings = [];
    /** @var list<resource> */
    private array $processes = [];
    /** @var list<string> files to delete at the end */
    private array $files = [];

    protected function setUp(): void
    {
        set_error_handler(function (int $level, string $message): bool {
            $this->warnings[] = $message;
            return true;
        }, E_USER_WARNING);
        $this->server = new Server();
    }

    protected function assertPostConditions(): void
    {
        self::assertSame([], $this->warnings, 'there were unexpected warnings');
    }

    protected function tearDown(): void
    {
        unset($this->server);
        restore_error_handler();
        foreach ($this->processes as $process) {
            proc_terminate($process, SIGKILL);
            proc_close($process);
        }
        array_map('unlink', $this->files);
    }

    /**
     * Asserts that there was exactly one warning since the last check, and that it contains this
     * text.
     */
    protected function assertWarned(string $what): void
    {
        self::assertCount(1, $this->warnings, implode("\n", $this->warnings));
        self::assertStringContainsString($what, $this->warnings[0]);
        $this->warnings = [];
    }

    /** For warnings that may come, but need not. */
    protected function forgetWarnings(): void
    {
        $this->warnings = [];
    }

    protected function assertNotWarned(): void
    {
        self::assertSame([], $this->warnings);
    }

    /**
     * Starts a program that inherits this process's sockets, like `exec('… &')`, and lives until
     * the test ends.
     */
    protected function startInBackground(): void
    {
        $process = proc_open(['sleep', '600'], [['file', '/dev/null', 'r']], $pipes);
        $this->processes[] = $process;
        $directory = '/proc/' . proc_get_status($process)['pid'] . '/fd/';
        Deadline::until('the program runs', fn (): bool => str_contains(
            (string) @file_get_contents(dirname($directory) . '/cmdline'),
            'sleep'
        ));
        $sockets = array_filter(scandir($directory), fn (string $descriptor): bool => str_starts_with(
            (string) @readlink($directory . $descriptor),
            'socket:'
        ));
        self::assertNotEmpty($sockets, 'the program has not inherited the connection');
    }

    /**
     * Runs a function in a forked child that skips PHP's work at the end of a process.
     *
     * @param callable(): mixed $do
     * @return mixed the function's result
     */
    protected function inChild(callable $do)
    {
        [$mine, $its] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        $pid = pcntl_fork();
        if ($pid === 0) {
            try {
                fwrite($its, serialize($do()));
            } finally {
                posix_kill(getmypid(), SIGKILL);
            }
        }
        fclose($its);
        $outcome = stream_get_contents($mine);
        pcntl_waitpid($pid, $status);
        return unserialize($outcome);
    }

    /**
     * Runs PHP code or a PHP file. Its arguments are the file of the class and then those given.
     *
     * @param list<string> $arguments
     * @return resource its output
     */
    protected function runScript(string $script, string $class, array $arguments)
    {
        $file = self::SCRIPTS . $script;
        if (str_starts_with($script, '<?php')) {
            $this->files[] = $file = tempnam(sys_get_temp_dir(), 'compat');
            file_put_contents($file, $script);
        }
        $command = [PHP_BINARY, '-d', 'display_errors=1', '-d', 'log_errors=0', $file, $class, ...$arguments];
        $streams = [['file', '/dev/null', 'r'], ['pipe', 'w'], ['redirect', 1]];
        $this->processes[] = proc_open($command, $streams, $pipes);
        return $pipes[1];
    }

    /**
     * Asserts that an old script does the same with the class it was written for and with the
     * drop-in class.
     */
    protected function assertSameTranscript(string $script, string $class, int $port): void
    {
        $transcripts = [];
        foreach ([self::SCRIPTS . 'old/', self::COMPAT] as $directory) {
            $output = $this->runScript($script, $directory . $class, ['127.0.0.1', (string) $port]);
            $transcripts[] = stream_get_contents($output);
        }
        self::assertMatchesRegularExpression('/: (?:yes|1)$/m', $transcripts[0]);
        self::assertSame($transcripts[0], $transcripts[1]);
    }

    /**
     * Asserts that no increment is lost when two processes, one with each class, increment a number
     * under the lock.
     */
    protected function assertNothingLost(string $script, string $class, Server $server, int $port): void
    {
        $counter = $server->directory() . '/counter';
        file_put_contents($counter, '0');
        $outputs = [];
        foreach ([self::SCRIPTS . 'old/', self::COMPAT, self::COMPAT] as $directory) {
            $arguments = ['127.0.0.1', (string) $port, $counter, '150'];
            $outputs[] = $this->runScript($script, $directory . $class, $arguments);
        }
        foreach ($outputs as $output) {
            self::assertSame("done\n", stream_get_contents($output));
        }
        self::assertSame('450', file_get_contents($counter));
    }
}
