<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/**
 * A forked child that runs alongside the test: it reports results line by line, and continues when
 * it is told to. It ends by SIGKILL, so that nothing of the test is cleaned up twice.
 */
final class Child
{
    private bool $ended = false;

    /** @param resource $channel */
    private function __construct(public readonly int $pid, private $channel)
    {
    }

    /**
     * @param callable(callable(string): void $say, callable(): void $pause): void $body in the
     *     child
     */
    public static function start(callable $body): self
    {
        // A child that cannot kill itself would go on with the parent's tests.
        if (!function_exists('posix_kill')) {
            throw new RuntimeException('PHP has no posix extension');
        }
        $channels = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
        if ($channels === false) {
            throw new RuntimeException('no channel for a child');
        }
        $pid = pcntl_fork();
        if ($pid === 0) {
            fclose($channels[0]);
            try {
                $body(
                    static fn (string $line) => fwrite($channels[1], $line . "\n"),
                    static function () use ($channels): void {
                        if (fgets($channels[1]) === false) {
                            posix_kill(getmypid(), SIGKILL);
                        }
                    },
                );
                fwrite($channels[1], "done\n");
            } catch (\Throwable $e) {
                fwrite($channels[1], get_class($e) . ': ' . strtr($e->getMessage(), "\n", ' ') . "\n");
            }
            posix_kill(getmypid(), SIGKILL);
        }
        fclose($channels[1]);
        stream_set_timeout($channels[0], 30);
        return new self($pid, $channels[0]);
    }

    /** The next line that it reports. */
    public function hear(): string
    {
        $line = fgets($this->channel);
        return $line === false ? 'nothing' : rtrim($line, "\n");
    }

    public function goOn(): void
    {
        fwrite($this->channel, "\n");
    }

    public function pause(): void
    {
        Pause::begin($this->pid);
    }

    public function resume(): void
    {
        Pause::end($this->pid);
    }

    public function kill(): void
    {
        if (!$this->ended) {
            $this->ended = true;
            posix_kill($this->pid, SIGKILL);
            pcntl_waitpid($this->pid, $status);
        }
    }

    public function __destruct()
    {
        $this->kill();
    }
}
