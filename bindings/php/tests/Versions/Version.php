<?php

declare(strict_types=1);

namespace Lockd\Tests\Versions;

use RuntimeException;

/** A version of PHP other than the installed one, from the packages of package.json. */
final class Version
{
    /** Scripts that tests start must not print the deprecations of frameworks older than PHP 8.4. */
    private const SETTINGS = ['error_reporting' => E_ALL & ~E_DEPRECATED & ~E_USER_DEPRECATED];
    /** What PHPUnit and the tests need, and is not part of the program. */
    private const EXTENSIONS = [
        'ctype', 'dom', 'ffi', 'iconv', 'mbstring', 'pdo', 'pdo_sqlite', 'phar', 'posix', 'simplexml', 'sockets',
        'tokenizer', 'xml', 'xmlwriter',
    ];

    /**
     * @param list<string> $command
     * @param bool $newest whether it is the newest, which has the deprecations of all
     */
    private function __construct(
        public readonly string $name,
        private array $command,
        public readonly bool $newest,
    ) {
    }

    /**
     * @param string $modules the directory node_modules
     * @param list<string> $directories what the versions must see of this machine
     * @return list<self>
     */
    public static function all(string $modules, array $directories): array
    {
        $web = ['node', __DIR__ . '/php-8.1.mjs', $modules, ...$directories, '--'];
        return [
            new self('8.1', [...$web, ...self::settings()], false),
            self::native('8.3', "$modules/@libphp/amazon-linux-2-v83/native"),
            self::native('8.4', "$modules/@libphp/amazon-linux-2023-v84/native"),
            self::native('8.5', "$modules/@libphp/almalinux-9-v85/native", true),
        ];
    }

    /**
     * The programs bring their own libraries and extensions. A script names those, and becomes
     * PHP_BINARY. LD_LIBRARY_PATH would not reach the PHP that a test starts with an environment of
     * its own, and would reach the other programs that tests start.
     */
    private static function native(string $name, string $directory, bool $newest = false): self
    {
        $ini = "extension_dir=$directory/php/modules\n";
        foreach (self::SETTINGS as $setting => $value) {
            $ini .= "$setting=$value\n";
        }
        foreach (self::EXTENSIONS as $extension) {
            $ini .= is_file("$directory/php/modules/$extension.so") ? "extension=$extension\n" : '';
        }
        file_put_contents("$directory/php.ini", $ini);
        $program = "$directory/php-$name";
        $loader = "/lib64/ld-linux-x86-64.so.2 --library-path '$directory/lib' --argv0 \"\$0\"";
        file_put_contents($program, "#!/bin/sh\nPHPRC='$directory' exec $loader '$directory/php/php' \"\$@\"\n");
        chmod($program, 0755);
        return new self($name, [$program], $newest);
    }

    /** @return list<string> */
    private static function settings(): array
    {
        // PHPUnit would ask a program for the width of the terminal.
        $options = ['-d', 'include_path=/usr/share/php', '-d', 'disable_functions=shell_exec'];
        foreach (self::SETTINGS as $setting => $value) {
            array_push($options, '-d', "$setting=$value");
        }
        return $options;
    }

    /**
     * @param list<string> $arguments
     * @param string $log where its output goes
     * @return resource the process
     */
    public function start(array $arguments, string $log)
    {
        $streams = [['file', '/dev/null', 'r'], ['file', $log, 'w'], ['file', $log, 'a']];
        $process = proc_open([...$this->command, ...$arguments], $streams, $pipes);
        return $process ?: throw new RuntimeException("cannot start {$this->command[0]}");
    }
}
