<?php

declare(strict_types=1);

namespace Lockd\Tests\Transport;

use PHPUnit\Framework\TestCase;

/**
 * How liblockd is found, and the messages if it is missing or has another version. Each case runs
 * in a process of its own.
 */
final class LibraryTest extends TestCase
{
    /** @param list<string> $options options for PHP */
    private static function outcome(?string $library, array $options = []): string
    {
        $script = 'require ' . var_export(__DIR__ . '/../../autoload.php', true) . ';'
            . 'try { $lock = Lockd\Client::embedded()->acquire("x"); echo $lock->isHeld() ? "held" : "not held"; }'
            . 'catch (Lockd\Exception\LibraryException $e) { echo $e->getMessage(); }';
        $environment = ['PATH' => (string) getenv('PATH')] + ($library === null ? [] : ['LOCKD_LIBRARY' => $library]);
        $streams = [1 => ['pipe', 'w'], 2 => ['pipe', 'w']];
        $process = proc_open([PHP_BINARY, ...$options, '-r', $script], $streams, $pipes, null, $environment);
        self::assertIsResource($process);
        $output = stream_get_contents($pipes[1]) . stream_get_contents($pipes[2]);
        proc_close($process);
        return $output;
    }

    private static function library(): string
    {
        return (string) getenv('LOCKD_LIBRARY');
    }

    public function testTheLibraryIsFoundByTheEnvironmentAndByPhpIni(): void
    {
        self::assertSame('held', self::outcome(self::library()));
        self::assertSame('held', self::outcome(null, ['-d', 'lockd.library=' . self::library()]));
        self::assertSame('held', self::outcome(self::library(), ['-d', 'lockd.library=/nowhere']));
    }

    public function testTheExceptionNamesAMissingLibraryOrExtension(): void
    {
        $outcome = self::outcome('/nowhere/liblockd.so');
        self::assertStringContainsString('/nowhere/liblockd.so', $outcome);
        self::assertStringContainsString('LOCKD_LIBRARY', $outcome);
        self::assertStringContainsString('FFI', self::outcome(self::library(), ['-d', 'ffi.enable=false']));
        // Without the system's configuration PHP does not load FFI.
        self::assertStringContainsString('FFI', self::outcome(self::library(), ['-n']));
    }

    public function testALibraryOfAnotherVersionIsRefused(): void
    {
        $directory = sys_get_temp_dir() . '/lockd-php-' . bin2hex(random_bytes(6));
        mkdir($directory);
        try {
            $header = (string) file_get_contents(__DIR__ . '/../../lockd.h');
            preg_match_all('/\b(lock_\w+)\(/', $header, $functions);
            $bodies = ['lock_abi_version' => 'int lock_abi_version() { return 99; }',
                'lock_version' => 'const char *lock_version() { return "9.9.9"; }'];
            foreach ($functions[1] as $function) {
                $bodies[$function] ??= "void *$function() { return 0; }";
            }
            file_put_contents("$directory/other.c", implode("\n", $bodies) . "\n");
            exec("cc -w -shared -fPIC -o $directory/other.so $directory/other.c 2>&1", $output, $status);
            self::assertSame(0, $status, implode("\n", $output));
            $outcome = self::outcome("$directory/other.so");
            self::assertStringContainsString('9.9.9', $outcome);
            self::assertStringContainsString('99', $outcome);
            // A library without the functions that this package calls.
            self::assertStringContainsString('cannot use', self::outcome('libc.so.6'));
        } finally {
            array_map('unlink', glob("$directory/*") ?: []);
            rmdir($directory);
        }
    }
}
