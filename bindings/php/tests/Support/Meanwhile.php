<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

/**
 * Something that happens while the test waits for a lock, in a signal's handler. Handlers run while a client waits,
 * so this works for locks in one process, too. With PHP's handlers in their two ways: at once, or when dispatched.
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
        // Should it come before the wait has begun, it does no harm: then there is less to wait for.
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
