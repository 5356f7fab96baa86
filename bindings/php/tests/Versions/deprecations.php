<?php

/**
 * To prepend to PHPUnit: a deprecation in this package or its tests fails the test. Those in the
 * frameworks and in PHPUnit itself, which are older than PHP 8.4, do not.
 */

declare(strict_types=1);

set_error_handler(static function (int $type, string $message, string $file, int $line): bool {
    $theirs = !str_starts_with($file, dirname(__DIR__, 2) . '/');
    if ($theirs && ($type & (E_DEPRECATED | E_USER_DEPRECATED)) !== 0) {
        return true;
    }
    // PHPUnit does not set its own handler where there is one.
    return (new PHPUnit\Util\ErrorHandler(true, true, true, true))($type, $message, $file, $line);
});
