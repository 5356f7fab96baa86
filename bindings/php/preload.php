<?php

/**
 * Makes liblockd usable in a web server's scripts: there PHP allows FFI only in preloaded files. In
 * php.ini, because a pool's php_admin_value comes too late:
 *
 *     opcache.preload = /path/to/this/preload.php
 *     opcache.preload_user = www-data
 *
 * and, to save each request a tenth of a millisecond (but then the web server does not start if
 * liblockd is missing):
 *
 *     ffi.preload = /path/to/this/lockd.h
 *
 * If there is another preload file already, require this one from it.
 */

declare(strict_types=1);

require_once __DIR__ . '/autoload.php';

// Preload every class that takes part: one that is not preloaded may not call FFI, or is loaded a
// second time by the script. Symfony's bundle does not, and is no class without Symfony.
foreach (['', 'Exception', 'Internal', 'Message', 'Transport', 'Ffi'] as $folder) {
    foreach (glob(rtrim(__DIR__ . "/src/$folder", '/') . '/*.php') ?: [] as $file) {
        if (basename($file) !== 'LockdBundle.php') {
            require_once $file;
        }
    }
}
