<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use Lockd\Tests\Support\Deadline;
use RuntimeException;

/**
 * A php-fpm for one test, in a directory of its own, which ends when the object is destroyed. It
 * uses the system's php.ini and has one worker in each pool, so that the test knows which worker
 * serves the next request. Knows nothing of locks.
 */
final class Fpm
{
    /** How long it may take to stop by itself, in seconds. */
    private const STOPPING = 5.0;

    /** @var resource */
    private $process;
    private int $owner;
    private string $directory;

    /**
     * @param array<string, string> $ini settings, as in php.ini
     * @param array<string, string> $pools additional configuration of each pool, by name
     * @param array<string, string> $environment
     */
    public static function start(array $ini = [], array $pools = ['worker' => ''], array $environment = []): self
    {
        // In two steps, so that the destructor also runs if php-fpm fails to listen. It would not
        // if the constructor threw.
        $fpm = new self($ini, $pools, $environment);
        $fpm->awaitListening();
        return $fpm;
    }

    /**
     * @param array<string, string> $ini
     * @param array<string, string> $pools
     * @param array<string, string> $environment
     */
    private function __construct(array $ini, array $pools, array $environment)
    {
        $program = self::program();
        $this->owner = getmypid();
        $this->directory = sys_get_temp_dir() . '/lockd-fpm-' . bin2hex(random_bytes(6));
        mkdir($this->directory, 0755);
        file_put_contents($this->path('conf'), $this->configuration($pools));
        $command = [$program, '--nodaemonize', '--fpm-config', $this->path('conf')];
        foreach ($ini as $name => $value) {
            array_push($command, '-d', "$name=$value");
        }
        $streams = [['file', '/dev/null', 'r'], ['file', $this->path('out'), 'a'], ['file', $this->path('out'), 'a']];
        $environment += ['PATH' => (string) getenv('PATH')];
        $process = proc_open($command, $streams, $pipes, null, $environment);
        if ($process === false) {
            throw new RuntimeException("cannot start $program");
        }
        $this->process = $process;
    }

    private function awaitListening(): void
    {
        Deadline::until('php-fpm listens', function (): bool {
            if (!proc_get_status($this->process)['running']) {
                throw new RuntimeException('php-fpm has not started: ' . $this->log());
            }
            return str_contains($this->log(), 'ready to handle connections');
        });
    }

    /** @param array<string, string> $pools */
    private function configuration(array $pools): string
    {
        $configuration = "[global]\nerror_log = {$this->path('log')}\n";
        foreach ($pools as $name => $further) {
            $configuration .= "[$name]\nlisten = {$this->socket($name)}\npm = static\npm.max_children = 1\n"
                . "php_admin_value[display_errors] = On\nphp_admin_value[html_errors] = Off\n"
                . "php_admin_value[log_errors] = Off\n$further\n";
            if (posix_geteuid() === 0) {
                $configuration .= 'user = ' . self::user() . "\n";
            }
        }
        return $configuration;
    }

    /** The user that the workers run as, if it can be chosen. */
    public static function user(): string
    {
        return posix_getpwnam('www-data') === false ? 'nobody' : 'www-data';
    }

    private static function program(): string
    {
        $version = PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION;
        return Program::find("php-fpm$version", 'php-fpm');
    }

    public function socket(string $pool): string
    {
        return $this->path("$pool.sock");
    }

    /** The text of its log. */
    public function log(): string
    {
        return @file_get_contents($this->path('out')) . @file_get_contents($this->path('log'));
    }

    private function path(string $file): string
    {
        return "$this->directory/$file";
    }

    /** @return list<int> */
    private function workers(): array
    {
        $pid = proc_get_status($this->process)['pid'];
        $workers = (string) @file_get_contents("/proc/$pid/task/$pid/children");
        return array_map('intval', preg_split('/ /', $workers, -1, PREG_SPLIT_NO_EMPTY) ?: []);
    }

    public function __destruct()
    {
        if (getmypid() !== $this->owner) {
            return;
        }
        if (is_resource($this->process)) {
            $workers = $this->workers();
            proc_terminate($this->process, SIGTERM);
            $end = microtime(true) + self::STOPPING;
            while (proc_get_status($this->process)['running'] && microtime(true) < $end) {
                usleep(2000);
            }
            if (proc_get_status($this->process)['running']) {
                foreach ($workers as $worker) {
                    posix_kill($worker, SIGKILL);
                }
                proc_terminate($this->process, SIGKILL);
            }
            proc_close($this->process);
        }
        array_map('unlink', glob($this->path('*')) ?: []);
        @rmdir($this->directory);
    }
}
