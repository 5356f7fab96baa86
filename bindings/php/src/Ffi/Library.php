<?php

declare(strict_types=1);

namespace Lockd\Ffi;

use FFI;
use Lockd\Exception\LibraryException;

/**
 * Finds liblockd, checks its version, and closes what the last script of this process has left open
 * in it.
 *
 * Where FFI is allowed only in preloaded files (`ffi.enable=preload`, the default of web servers),
 * the binding comes from `ffi.preload`, and this file is preloaded by `preload.php`.
 *
 * @internal
 */
final class Library
{
    /** The version of the interface that this class is written for. */
    private const ABI_VERSION = 1;

    private const HEADER = __DIR__ . '/../../lockd.h';

    private static ?FFI $library = null;

    /** @throws LibraryException */
    public static function get(): FFI
    {
        return self::$library ??= self::load();
    }

    private static function load(): FFI
    {
        if (!extension_loaded('ffi')) {
            throw new LibraryException('PHP\'s extension FFI is not installed, or is turned off');
        }
        $library = self::preloaded() ?? self::define();
        $version = $library->lock_abi_version();
        if ($version !== self::ABI_VERSION) {
            throw new LibraryException("liblockd {$library->lock_version()} has version $version of the interface, not "
                . self::ABI_VERSION);
        }
        if (PHP_SAPI !== 'cli') {
            // The last script of this thread may have ended in a way that left its sessions open.
            $library->lock_close_all();
        }
        return $library;
    }

    private static function preloaded(): ?FFI
    {
        try {
            return FFI::scope('lockd');
        } catch (\Throwable) {
            return null;
        }
    }

    private static function define(): FFI
    {
        // `true`: only the process's own environment, not variables that a web server passes on
        // from a request. The default is a name for the system's loader: a relative path would
        // depend on the working directory.
        $path = (function_exists('getenv') ? getenv('LOCKD_LIBRARY', true) : false)
            ?: (function_exists('get_cfg_var') ? get_cfg_var('lockd.library') : false)
            ?: 'liblockd.so.1';
        try {
            return FFI::cdef((string) file_get_contents(self::HEADER), $path);
        } catch (FFI\Exception $e) {
            throw new LibraryException("cannot use \"$path\": {$e->getMessage()}. liblockd is looked for where "
                . 'LOCKD_LIBRARY in the environment or lockd.library in php.ini says, or else where the system keeps '
                . 'its libraries; a web server must preload the classes that use FFI, as preload.php says', 0, $e);
        }
    }
}
