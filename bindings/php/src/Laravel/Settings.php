<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Lockd\Exception\InvalidArgumentException;

/**
 * Reads the values that settings have in config/lockd.php, where those of the environment are
 * texts. A value that is not understood is an exception that names the setting, and never a guess.
 *
 * @internal
 */
final class Settings
{
    /**
     * The longest time, in minutes, that an event may be late: the name of its lock has the time of
     * the day only, and must be free a day later.
     */
    private const LATE_MAX = 1380;

    /**
     * @param string $name the key in config/lockd.php
     * @return ?bool null: it is not set
     * @throws InvalidArgumentException
     */
    public static function isOn(string $name, mixed $value): ?bool
    {
        return $value === null ? null : filter_var($value, FILTER_VALIDATE_BOOLEAN, FILTER_NULL_ON_FAILURE)
            ?? throw self::wrong($name, $value, 'true or false (or on, off, yes, no, 1, 0)');
    }

    /** @throws InvalidArgumentException */
    public static function seconds(string $name, mixed $value): float
    {
        $seconds = filter_var($value, FILTER_VALIDATE_FLOAT);
        return $seconds !== false && $seconds > 0.0 && is_finite($seconds)
            ? $seconds : throw self::wrong($name, $value, 'a number of seconds above 0');
    }

    /** @throws InvalidArgumentException */
    public static function minutes(string $name, mixed $value): int
    {
        $range = ['min_range' => 1, 'max_range' => self::LATE_MAX];
        $minutes = filter_var($value, FILTER_VALIDATE_INT, ['options' => $range]);
        return $minutes !== false
            ? $minutes : throw self::wrong($name, $value, 'a whole number of minutes from 1 to ' . self::LATE_MAX);
    }

    private static function wrong(string $name, mixed $value, string $right): InvalidArgumentException
    {
        $given = is_scalar($value) ? var_export($value, true) : get_debug_type($value);
        return new InvalidArgumentException(
            'LOCKD_' . strtoupper($name) . " ('$name' in the configuration) must be $right, and not $given"
        );
    }
}
