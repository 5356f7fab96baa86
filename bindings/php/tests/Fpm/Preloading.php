<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use RuntimeException;

/**
 * A php-fpm configured for liblockd as preload.php says, with the library as if it were installed.
 */
final class Preloading
{
    private string $directory;

    public function __construct()
    {
        $this->directory = sys_get_temp_dir() . '/lockd-library-' . bin2hex(random_bytes(6));
        mkdir($this->directory, 0755);
        $library = realpath((string) getenv('LOCKD_LIBRARY'));
        if ($library === false) {
            throw new RuntimeException('there is no liblockd where LOCKD_LIBRARY says: ' . getenv('LOCKD_LIBRARY'));
        }
        symlink($library, $this->directory . '/liblockd.so.1');
    }

    /**
     * @param array<string, string> $ini further settings
     * @param array<string, string> $pools
     * @param list<string> $without settings to leave out
     */
    public function fpm(array $ini = [], array $pools = ['worker' => ''], array $without = []): Fpm
    {
        $ini = array_diff_key($ini + self::ini(), array_flip($without));
        return Fpm::start($ini, $pools, ['LD_LIBRARY_PATH' => $this->directory]);
    }

    /** @return array<string, string> */
    public static function ini(): array
    {
        return [
            'opcache.preload' => dirname(__DIR__, 2) . '/preload.php',
            'opcache.preload_user' => Fpm::user(),
            'ffi.preload' => self::header(),
        ];
    }

    /** A copy of our header that names a library which no system has. */
    public function headerOfNothing(): string
    {
        $header = str_replace('liblockd.so.1', 'liblockd-nowhere.so.1', (string) file_get_contents(self::header()));
        file_put_contents($this->directory . '/lockd.h', $header);
        return $this->directory . '/lockd.h';
    }

    private static function header(): string
    {
        return dirname(__DIR__, 2) . '/lockd.h';
    }

    public function __destruct()
    {
        @unlink($this->directory . '/lockd.h');
        @unlink($this->directory . '/liblockd.so.1');
        @rmdir($this->directory);
    }
}
