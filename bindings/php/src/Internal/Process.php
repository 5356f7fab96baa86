<?php

declare(strict_types=1);

namespace Lockd\Internal;

use WeakReference;

/**
 * The connections and sessions that this process has opened and not closed. PHP does not report a
 * fork, and does not run every destructor when a script ends in a fatal error. This class closes
 * sessions in both cases.
 *
 * @internal
 */
final class Process
{
    /**
     * Bytes that are kept and freed first after a fatal error, because the error may be that memory
     * has run out.
     */
    private const RESERVE = 65536;

    private const FATAL = E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_RECOVERABLE_ERROR | E_USER_ERROR | E_PARSE;

    private static ?int $pid = null;
    private static ?string $reserve = null;
    /**
     * @var resource|false|null the stream that PHP closes at the script's end; null: no session has
     *     been opened yet
     */
    private static $end = null;
    /** @var array<int, WeakReference<Endable>> */
    private static array $open = [];

    /**
     * The id of this process, which differs after a fork. 0 where no function tells it;
     * {@see Requirements} allows that only where a script cannot fork.
     */
    public static function id(): int
    {
        return match (true) {
            function_exists('getmypid') => (int) getmypid(),
            function_exists('posix_getpid') => posix_getpid(),
            default => 0,
        };
    }

    public static function opened(Endable $session): void
    {
        self::closeInherited();
        if (self::$end === null) {
            self::$reserve = str_repeat('.', self::RESERVE);
            self::$end = ScriptEnd::watch();
            // Registered in two steps, so that it runs after all shutdown functions of the script,
            // which may still need their locks.
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

    /**
     * Closes this process's copies of its parent's sessions, so that these end when the parent
     * does.
     */
    public static function closeInherited(): void
    {
        $pid = self::id();
        if (self::$pid !== null && self::$pid !== $pid) {
            self::forEach(static fn (Endable $session) => $session->abandon());
        }
        self::$pid = $pid;
    }

    /** Frees the locks of a script that ended in a fatal error, and marks them as orphaned. */
    private static function endAfterFatalError(): void
    {
        self::$reserve = null;
        $error = function_exists('error_get_last') ? error_get_last() : null;
        if ((($error['type'] ?? 0) & self::FATAL) !== 0) {
            self::endAll();
        }
    }

    /** Ends all sessions of this process at the end of its script. */
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
