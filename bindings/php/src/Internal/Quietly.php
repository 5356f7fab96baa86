<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * Calls of PHP's own functions that fail with a warning, where the failure is seen by the result. Not by `@`: a
 * program's error handler is called all the same then, and some throw whatever they are called for.
 *
 * @internal
 */
final class Quietly
{
    /** What was last not said. */
    public static string $warning = '';

    /**
     * @template T
     * @param callable(): T $call of functions of PHP's alone
     * @return T
     */
    public static function call(callable $call): mixed
    {
        self::$warning = '';
        set_error_handler(static function (int $level, string $warning): bool {
            self::$warning = $warning;
            return true;
        });
        try {
            return $call();
        } finally {
            restore_error_handler();
        }
    }
}
