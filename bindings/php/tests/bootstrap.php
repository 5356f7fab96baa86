<?php

/**
 * Loads the classes of the package and of its tests, and those of the frameworks, from Composer or
 * from where Debian's packages install them.
 */

declare(strict_types=1);

$composer = dirname(__DIR__, 3) . '/vendor/autoload.php';
if (is_file($composer)) {
    require $composer;
} else {
    require __DIR__ . '/../autoload.php';
    spl_autoload_register(static function (string $class): void {
        $file = str_starts_with($class, 'Lockd\\Tests\\')
            ? __DIR__ . '/' . strtr(substr($class, 12), '\\', '/') . '.php'
            : '/usr/share/php/' . strtr($class, '\\', '/') . '.php';
        if (is_file($file)) {
            require $file;
        }
    });
}

// The library that cargo has built for the tests, unless LOCKD_LIBRARY names another.
if (getenv('LOCKD_LIBRARY') === false) {
    $target = getenv('CARGO_TARGET_DIR') ?: dirname(__DIR__, 3) . '/target';
    putenv("LOCKD_LIBRARY=$target/debug/deps/liblockd.so");
}
