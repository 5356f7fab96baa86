<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * Calls PHP's own functions without their warnings, where the result shows the failure. `@` is
 * not enough: PHP calls a program's error handler despite it, and some handlers always throw.
 *
 * @internal
 */
final class Quietly
{
    /** The warning of the last call; empty: it had none. */
    public static string $warning = '';

    /**
     * @template T
     * @param callable(): T $call calls only functions of PHP itself
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
