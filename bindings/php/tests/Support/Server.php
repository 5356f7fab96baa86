<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/**
 * A lockd for one test, on free ports of the loopback interface and on a socket in a directory of
 * its own. It ends when the object is destroyed. LOCKD_BIN may name the program; by default it is
 * the one that cargo has built.
 */
final class Server
{
    /** @var resource */
    private $process;
    private int $owner;
    private string $directory;
    private string $log;
    /** @var array<string, string> the addresses that it listens on, by protocol */
    private array $addresses = [];
    private bool $paused = false;
    /** @var list<string> options that it also has when it is started again */
    private array $lasting = [];

    /**
     * @param list<string> $options further options of the program
     * @param bool $remembers whether it has a state directory, so that sessions may resume
     */
    public function __construct(array $options = [], bool $remembers = false)
    {
        $this->owner = getmypid();
        $this->directory = sys_get_temp_dir() . '/lockd-php-' . bin2hex(random_bytes(6));
        mkdir($this->directory, 0700);
        $this->log = $this->directory . '/log';
        if ($remembers) {
            mkdir($this->state(), 0700);
            // The shortest dead-peer timeout: for so long it grants nothing if it was killed before.
            $this->lasting = ['--state-dir', $this->state(), '--dead-peer-timeout', '12'];
            $options[] = '--first-start';
        }
        $listen = ['message://127.0.0.1:0', 'lockd://127.0.0.1:0', 'glockd://127.0.0.1:0'];
        $this->start($listen, [...$this->lasting, ...$options]);
    }

    /**
     * @param list<string> $listen
     * @param list<string> $options
     */
    private function start(array $listen, array $options): void
    {
        $command = [self::program(), '--listen', 'message+unix:' . $this->socket()];
        foreach ($listen as $address) {
            array_push($command, '--listen', $address);
        }
        $this->process = $this->run([...$command, ...$options]);
        $isAgain = !str_ends_with($listen[0], ':0');
        Deadline::until('the server listens', function () use ($listen, $command, $options, $isAgain): bool {
            if ($isAgain && !proc_get_status($this->process)['running']) {
                // The system has given its port to a client of another test for the moment.
                usleep(100_000);
                $this->process = $this->run([...$command, ...$options]);
            }
            $listens = '#listening on ((\w+)(?:\+unix)?:\S+)#';
            preg_match_all($listens, (string) file_get_contents($this->log), $lines, PREG_SET_ORDER);
            foreach ($lines as [, $address, $protocol]) {
                $this->addresses[str_contains($address, '+unix') ? 'unix' : $protocol] = $address;
            }
            return count($this->addresses) === count($listen) + 1;
        });
    }

    public static function program(): string
    {
        $target = getenv('CARGO_TARGET_DIR') ?: __DIR__ . '/../../../../target';
        return getenv('LOCKD_BIN') ?: $target . '/debug/lockd';
    }

    /** The address for a client of the `message` protocol. */
    public function tcp(): string
    {
        return str_replace('message:', 'tcp:', $this->addresses['message']);
    }

    /** The same without the scheme: one place of a group. */
    public function place(): string
    {
        return substr($this->tcp(), strlen('tcp://'));
    }

    public function unix(): string
    {
        return 'unix:' . $this->socket();
    }

    public function socket(): string
    {
        return $this->directory . '/lockd.sock';
    }

    public function host(): string
    {
        return '127.0.0.1';
    }

    /** @param 'message'|'lockd'|'glockd' $protocol */
    public function port(string $protocol = 'message'): int
    {
        return (int) substr(strrchr($this->addresses[$protocol], ':'), 1);
    }

    /** A directory that is deleted with the server. */
    public function directory(): string
    {
        return $this->directory;
    }

    /** The directory with what it remembers, if it does. */
    private function state(): string
    {
        return $this->directory . '/state';
    }

    /** Deletes what it remembers, while it is not running. */
    public function forget(): void
    {
        array_map('unlink', glob($this->state() . '/*') ?: []);
    }

    public function log(): string
    {
        return (string) file_get_contents($this->log);
    }

    /** Stops the process: from now on only the kernel answers for the server. */
    public function pause(): void
    {
        $this->paused = true;
        Pause::begin(proc_get_status($this->process)['pid']);
    }

    public function resume(): void
    {
        $this->signal(SIGCONT);
        $this->paused = false;
    }

    /** Kills the server without a clean stop. */
    public function kill(): void
    {
        $this->signal(SIGKILL);
        $this->paused = false;
        proc_close($this->process);
    }

    /**
     * @param list<string> $command
     * @return resource
     */
    private function run(array $command)
    {
        $streams = [['file', '/dev/null', 'r'], ['file', '/dev/null', 'w'], ['file', $this->log, 'w']];
        $environment = ['PATH' => (string) getenv('PATH')];
        $process = proc_open($command, $streams, $pipes, null, $environment);
        if ($process === false) {
            throw new RuntimeException('cannot start ' . self::program());
        }
        return $process;
    }

    /** Kills the server and starts another on the same addresses. */
    public function restart(): void
    {
        $this->kill();
        $this->startAgain();
    }

    /** Stops the server cleanly and starts another on the same addresses. */
    public function restartCleanly(): void
    {
        $this->stop();
        $this->startAgain();
    }

    /** Stops the server cleanly. */
    public function stop(): void
    {
        $this->signal(SIGTERM);
        proc_close($this->process);
    }

    /** Starts a server on the addresses of the one that was killed. */
    public function startAgain(): void
    {
        $listen = array_diff_key($this->addresses, ['unix' => '']);
        $this->addresses = [];
        $this->start(array_values($listen), $this->lasting);
    }

    /** Starts a server with what the one that was stopped or killed remembers, in another place. */
    public function startAt(string $place): void
    {
        $this->addresses = [];
        $this->start(["message://$place", 'lockd://127.0.0.1:0', 'glockd://127.0.0.1:0'], $this->lasting);
    }

    private function signal(int $signal): void
    {
        proc_terminate($this->process, $signal);
    }

    public function __destruct()
    {
        if (getmypid() !== $this->owner) {
            return;
        }
        if (is_resource($this->process)) {
            if ($this->paused) {
                $this->resume();
            }
            $this->signal(SIGTERM);
            proc_close($this->process);
        }
        $this->forget();
        @rmdir($this->state());
        foreach (glob($this->directory . '/*') ?: [] as $file) {
            @unlink($file);
        }
        @rmdir($this->directory);
    }
}
