<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/** Signals that come all the time, from a process of their own, and whose handler throws: so at every moment. */
final class Storm
{
    private readonly Child $sender;
    private readonly bool $wasAsync;
    private bool $throws = false;

    public function __construct()
    {
        pcntl_signal(SIGUSR1, function (): void {
            if ($this->throws) {
                // One for each call: what a caller does about it is not disturbed.
                $this->throws = false;
                throw new RuntimeException('struck');
            }
        });
        $this->wasAsync = pcntl_async_signals();
        $parent = getmypid();
        $this->sender = Child::start(static function () use ($parent): void {
            while (posix_getppid() === $parent) {
                posix_kill($parent, SIGUSR1);
                usleep(50);
            }
        });
    }

    /** Whether `$call` was struck. */
    public function strikes(callable $call): bool
    {
        try {
            $this->throws = true;
            pcntl_async_signals(true);
            $call();
            pcntl_async_signals(false);
        } catch (RuntimeException $e) {
            if ($e->getMessage() !== 'struck') {
                throw $e;
            }
            return true;
        } finally {
            pcntl_async_signals(false);
            $this->throws = false;
        }
        return false;
    }

    public function end(): void
    {
        $this->sender->kill();
        pcntl_signal_dispatch();
        pcntl_signal(SIGUSR1, SIG_DFL);
        pcntl_async_signals($this->wasAsync);
    }
}
