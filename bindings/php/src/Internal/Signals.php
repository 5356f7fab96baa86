<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Throwable;
use WeakReference;

/**
 * Decides when signal handlers run. A handler may throw, or use the same client. So handlers are
 * deferred while a client works, and run at points where they do no harm: while it waits.
 *
 * PHP itself is harmed by an asynchronous handler that throws between two calls of its own
 * functions, if one is an argument of the other, as in `hash($a, hash($a, $b))`: it then frees an
 * argument that it has not stored yet, whatever is there in memory (seen with PHP 8.2). So not even
 * an address is read where a handler might run.
 *
 * @internal
 */
final class Signals
{
    /** @var ?WeakReference<Throwable> what a handler has thrown last in {@see dispatch()} */
    private static ?WeakReference $thrown = null;

    /**
     * Defers signal handlers while `$body` runs, except where it calls {@see dispatch()}.
     *
     * @template T
     * @param callable(): T $body
     * @return T
     */
    public static function deferred(callable $body): mixed
    {
        if (!function_exists('pcntl_async_signals') || !pcntl_async_signals()) {
            return $body();
        }
        try {
            // The handler of a signal that has just arrived may run here, and throw.
            pcntl_async_signals(false);
            return $body();
        } finally {
            pcntl_async_signals(true);
            // Runs the handlers of signals that arrived meanwhile. If one throws, the return value
            // of the body is lost, and PHP may not even destroy it. So the body must store what
            // matters before it returns.
            if (function_exists('pcntl_signal_dispatch')) {
                pcntl_signal_dispatch();
            }
        }
    }

    /** Runs the handlers of the signals that have arrived, and passes on what they throw. */
    public static function dispatch(): void
    {
        if (function_exists('pcntl_signal_dispatch')) {
            try {
                pcntl_signal_dispatch();
            } catch (Throwable $e) {
                self::$thrown = WeakReference::create($e);
                throw $e;
            }
        }
    }

    /** Whether a handler has thrown this, and not a call of this package. */
    public static function threw(Throwable $e): bool
    {
        return self::$thrown?->get() === $e;
    }
}
