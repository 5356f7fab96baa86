<?php

/**
 * Loads the classes of this package where there is no Composer:
 * `require '…/bindings/php/autoload.php';`
 */

declare(strict_types=1);

if (!function_exists('spl_autoload_register')) {
    throw new RuntimeException('lockd needs the function spl_autoload_register (see disable_functions in php.ini)');
}
spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'Lockd\\')) {
        $file = __DIR__ . '/src/' . strtr(substr($class, 6), '\\', '/') . '.php';
        if (is_file($file)) {
            require $file;
        }
    }
});
