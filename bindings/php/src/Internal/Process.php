<?php

declare(strict_types=1);

namespace Lockd\Internal;

use WeakReference;

/**
 * The connections and sessions that this process has opened and not closed. PHP says nothing of a fork, and does
 * not run every destructor when a script ends badly: this is who looks after both.
 *
 * @internal
 */
final class Process
{
    /** Let go before anything is done about a fatal error, which may be that there is no memory left. */
    private const RESERVE = 65536;

    private const FATAL = E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_RECOVERABLE_ERROR | E_USER_ERROR | E_PARSE;

    private static ?int $pid = null;
    private static ?string $reserve = null;
    /** @var resource|false|null what tells of the script's end; null: there was nothing to be told of yet */
    private static $end = null;
    /** @var array<int, WeakReference<Endable>> */
    private static array $open = [];

    /** Of this process, and not of the one it was forked from. Where PHP may not say it, it may not fork, either. */
    public static function id(): int
    {
        return function_exists('getmypid') ? (int) getmypid() : 0;
    }

    public static function opened(Endable $session): void
    {
        self::closeInherited();
        if (self::$end === null) {
            self::$reserve = str_repeat('.', self::RESERVE);
            self::$end = ScriptEnd::watch();
            // Called twice: the second time after the functions that the script has registered by its end, which
            // may still need their locks.
            register_shutdown_function(static function (): void {
                register_shutdown_function(self::endAfterFatalError(...));
            });
        }
        self::$open[spl_object_id($session)] = WeakReference::create($session);
    }

    public static function closed(Endable $session): void
    {
        unset(self::$open[spl_object_id($session)]);
    }

    /** Closes this process' copies of what its parent has opened, so that they live no longer than the parent. */
    public static function closeInherited(): void
    {
        $pid = self::id();
        if (self::$pid !== null && self::$pid !== $pid) {
            self::forEach(static fn (Endable $session) => $session->abandon());
        }
        self::$pid = $pid;
    }

    /** Locks end with their script: their holder is gone, and the next one is told so. */
    private static function endAfterFatalError(): void
    {
        self::$reserve = null;
        $error = function_exists('error_get_last') ? error_get_last() : null;
        if ((($error['type'] ?? 0) & self::FATAL) !== 0) {
            self::endAll();
        }
    }

    /** Of this process, when its script is over. */
    public static function endAll(): void
    {
        if (self::$pid === self::id()) {
            self::forEach(static fn (Endable $session) => $session->end());
        }
    }

    /** @param callable(Endable): void $do */
    private static function forEach(callable $do): void
    {
        $open = self::$open;
        self::$open = [];
        foreach ($open as $reference) {
            $session = $reference->get();
            if ($session !== null) {
                $do($session);
            }
        }
    }
}
