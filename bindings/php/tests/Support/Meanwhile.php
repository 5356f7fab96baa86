<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

/**
 * Runs a function in a signal handler while the test waits for a lock. This also works for locks
 * within one process, because handlers run while a client waits. PHP runs handlers in two ways, at
 * once or when they are dispatched, and tests can choose.
 */
final class Meanwhile
{
    /** @var resource */
    private $sender;
    private bool $wasAsync;

    private function __construct(callable $do, bool $async)
    {
        $this->wasAsync = pcntl_async_signals($async);
        pcntl_signal(SIGUSR1, static function () use ($do): void {
            $do();
        });
        // If the signal comes before the wait has begun, the wait is just shorter.
        $script = 'sleep 0.2; kill -USR1 ' . getmypid();
        $streams = [['file', '/dev/null', 'r'], ['file', '/dev/null', 'w'], ['file', '/dev/null', 'w']];
        $this->sender = proc_open(['sh', '-c', $script], $streams, $pipes);
    }

    public static function does(callable $do, bool $async = true): self
    {
        return new self($do, $async);
    }

    public function __destruct()
    {
        proc_close($this->sender);
        pcntl_signal_dispatch();
        pcntl_signal(SIGUSR1, SIG_DFL);
        pcntl_async_signals($this->wasAsync);
    }
}
