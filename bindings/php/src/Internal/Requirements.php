<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Exception\ConnectException;
use ReflectionException;
use ReflectionFunction;

/**
 * Checks that PHP has the functions that the package calls. Web hosters turn functions off
 * (`disable_functions`), and a missing one must be noticed before a lock is granted, not in the
 * middle of the work under it. Knows their names only; the adapters' own needs are not among them.
 *
 * @internal
 */
final class Requirements
{
    /** What every client calls. Functions that are not here are called only if they exist. */
    private const ALWAYS = [
        'array_filter', 'array_keys', 'array_map', 'array_values', 'bin2hex', 'ceil', 'class_exists', 'count',
        'explode', 'extension_loaded', 'file_get_contents', 'fopen', 'function_exists', 'get_debug_type', 'hash',
        'hex2bin', 'hrtime', 'implode', 'in_array', 'is_a', 'is_array', 'is_bool', 'is_callable', 'is_file', 'is_float',
        'is_int', 'is_object', 'is_string', 'json_decode', 'max', 'method_exists', 'microtime', 'min', 'preg_match',
        'preg_split', 'random_bytes', 'random_int', 'register_shutdown_function', 'restore_error_handler',
        'set_error_handler', 'sort', 'spl_object_id', 'str_contains', 'str_ends_with', 'str_repeat', 'str_starts_with',
        'strcasecmp', 'strcmp', 'stream_wrapper_register', 'strrchr', 'strstr', 'substr', 'trigger_error',
        'trim', 'usleep',
    ];

    /** What the streams call in addition. */
    private const BY_STREAMS = [
        'addcslashes', 'array_key_exists', 'defined', 'fclose', 'feof', 'fread', 'fwrite',
        'intdiv', 'is_finite', 'is_infinite', 'is_resource', 'json_encode',
        'json_last_error_msg', 'pack', 'stream_select', 'stream_set_blocking', 'stream_socket_client',
        'stream_socket_get_name', 'strlen', 'strtok', 'unpack',
    ];

    /** Whether they were found: of every client, and of the streams too. */
    private static bool $isMet = false;
    private static bool $isMetByStreams = false;
    private static bool $hasQuickWay = false;

    /**
     * For a client that uses liblockd.
     *
     * @throws ConnectException a function is missing; it says which
     */
    public static function forLibrary(): void
    {
        if (!self::$isMet) {
            self::mustExist(self::ALWAYS);
            self::$isMet = true;
        }
    }

    /**
     * For a client that uses PHP's own streams.
     *
     * @throws ConnectException a function is missing; it says which
     */
    public static function forStreams(): void
    {
        if (!self::$isMetByStreams) {
            self::mustExist([...self::ALWAYS, ...self::BY_STREAMS]);
            self::$isMet = self::$isMetByStreams = true;
        }
    }

    /** @param list<string> $functions */
    private static function mustExist(array $functions): void
    {
        self::$hasQuickWay = self::isDefined('function_exists');
        $missing = '';
        foreach ([...$functions, ...self::dependingOnPhp()] as $function) {
            if (!self::exists($function)) {
                $missing .= ($missing === '' ? '' : ', ') . $function;
            }
        }
        if ($missing !== '') {
            throw new ConnectException(
                "lockd needs functions that this PHP does not have: $missing (see disable_functions in php.ini)"
            );
        }
    }

    /**
     * Functions that are needed in some installations only.
     *
     * @return list<string>
     */
    private static function dependingOnPhp(): array
    {
        $needed = [];
        if (self::exists('ini_get') && ini_get('zend.assertions') === '1') {
            $needed[] = 'assert';
        }
        // A forked child must notice that a lock is its parent's, or both of them would hold it.
        $mayFork = match (PHP_SAPI) {
            'fpm-fcgi', 'cgi-fcgi', 'apache2handler', 'litespeed' => self::exists('pcntl_fork'),
            default => true,
        };
        if ($mayFork && !self::exists('posix_getpid')) {
            $needed[] = 'getmypid';
        }
        return $needed;
    }

    private static function isDefined(string $function): bool
    {
        try {
            new ReflectionFunction($function);
            return true;
        } catch (ReflectionException) {
            return false;
        }
    }

    private static function exists(string $function): bool
    {
        // The quick way may itself be disabled.
        return self::$hasQuickWay ? function_exists($function) : self::isDefined($function);
    }
}
