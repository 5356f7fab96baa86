<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * When signal handlers run. A handler may throw, or use the same client: so while a client is at work they wait,
 * and run where that does no harm, which is while it waits for something.
 *
 * @internal
 */
final class Signals
{
    /**
     * Keeps handlers waiting while `$body` runs, but where that calls {@see dispatch()}.
     *
     * @template T
     * @param callable(): T $body
     * @return T
     */
    public static function deferred(callable $body): mixed
    {
        $hasHandlers = function_exists('pcntl_async_signals') && function_exists('pcntl_signal_dispatch');
        if (!$hasHandlers || !pcntl_async_signals()) {
            return $body();
        }
        try {
            // A signal that came just before may have its handler run here, and throw.
            pcntl_async_signals(false);
            return $body();
        } finally {
            pcntl_async_signals(true);
            // Those that came meanwhile. If one throws, what the body has returned is lost, and PHP may even forget to
            // destroy it: what matters is to be kept before the body returns.
            pcntl_signal_dispatch();
        }
    }

    /** Runs the handlers of the signals that have come. May throw whatever they throw. */
    public static function dispatch(): void
    {
        if (function_exists('pcntl_signal_dispatch')) {
            pcntl_signal_dispatch();
        }
    }
}
