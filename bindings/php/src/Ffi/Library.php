<?php

declare(strict_types=1);

namespace Lockd\Ffi;

use FFI;
use Lockd\Exception\LibraryException;

/**
 * liblockd as PHP sees it: found, of the right version, and swept of what the last script of this process has left
 * in it.
 *
 * Where FFI is for preloaded files alone (`ffi.enable=preload`, the default of web servers), the binding comes from
 * `ffi.preload`, and this file is preloaded by `preload.php`.
 *
 * @internal
 */
final class Library
{
    /** Of the header that this was written for. */
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
            throw new LibraryException('PHP\'s extension FFI is not there, or is turned off');
        }
        $library = self::preloaded() ?? self::define();
        $version = $library->lock_abi_version();
        if ($version !== self::ABI_VERSION) {
            throw new LibraryException("liblockd {$library->lock_version()} has version $version of the interface, not "
                . self::ABI_VERSION);
        }
        if (PHP_SAPI !== 'cli') {
            // The last script of this thread may have ended so that nobody could close its sessions.
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
        // Not what a web server passes on of a request, and not a relative path, which would be another file
        // elsewhere.
        $path = getenv('LOCKD_LIBRARY', true) ?: get_cfg_var('lockd.library') ?: 'liblockd.so.1';
        try {
            return FFI::cdef((string) file_get_contents(self::HEADER), $path);
        } catch (FFI\Exception $e) {
            throw new LibraryException("cannot use \"$path\": {$e->getMessage()}. liblockd is looked for where "
                . 'LOCKD_LIBRARY in the environment or lockd.library in php.ini says, or else where the system keeps '
                . 'its libraries; a web server has to preload what uses FFI, as preload.php says', 0, $e);
        }
    }
}
