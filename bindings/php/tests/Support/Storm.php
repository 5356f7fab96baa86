<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/**
 * Signals from another process that come all the time, with a handler that throws, so that
 * exceptions occur at every possible moment.
 */
final class Storm
{
    private readonly Child $sender;
    private readonly bool $wasAsync;
    /** How many signals later the handler throws; 0: never. */
    private int $left = 0;
    private bool $began = false;

    /** Returns when the signals come. */
    public function __construct()
    {
        pcntl_signal(SIGUSR1, function (): void {
            $this->began = true;
            // At most one exception for each call, so that the caller's clean-up is not interrupted.
            if ($this->left > 0 && --$this->left === 0) {
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
        Deadline::until('the signals come', function (): bool {
            pcntl_signal_dispatch();
            return $this->began;
        });
    }

    /**
     * Whether the handler threw during `$call`.
     *
     * @param int $signal at which of the signals it is to throw
     */
    public function strikes(callable $call, int $signal = 1): bool
    {
        try {
            $this->left = $signal;
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
            $this->left = 0;
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
