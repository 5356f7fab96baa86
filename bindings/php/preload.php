<?php

/**
 * Makes liblockd usable in a web server's scripts, where PHP allows FFI to preloaded files alone. In php.ini, since
 * a pool's php_admin_value comes too late:
 *
 *     opcache.preload = /path/to/this/preload.php
 *     opcache.preload_user = www-data
 *
 * and, to save each request a tenth of a millisecond, at the price that nothing starts where liblockd is missing:
 *
 *     ffi.preload = /path/to/this/lockd.h
 *
 * With another preload file already there, require this one from it.
 */

declare(strict_types=1);

require_once __DIR__ . '/autoload.php';

// Every class that is not preloaded would be one that may not call FFI, or that is loaded beside it a second time.
foreach (['', 'Exception', 'Internal', 'Message', 'Transport', 'Ffi'] as $folder) {
    foreach (glob(rtrim(__DIR__ . "/src/$folder", '/') . '/*.php') ?: [] as $file) {
        require_once $file;
    }
}
