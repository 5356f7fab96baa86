<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use RuntimeException;

/** Finds programs of the system, including those that only an administrator's PATH contains. */
final class Program
{
    /** The path of the first of these programs that exists. */
    public static function find(string ...$names): string
    {
        $path = getenv('PATH') . ':/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin';
        foreach ($names as $name) {
            foreach (explode(':', $path) as $directory) {
                if (is_executable("$directory/$name")) {
                    return "$directory/$name";
                }
            }
        }
        throw new RuntimeException(implode(' or ', $names) . ' is not there, and is needed; in Debian php-fpm and '
            . 'cgi-fcgi come with the packages php-fpm and libfcgi-bin');
    }
}
