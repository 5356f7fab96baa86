<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use RuntimeException;

/**
 * Mistakes in the configuration of php-fpm for liblockd. Checks that each message says what to
 * correct.
 */
final class Mistakes
{
    private const SCRIPT = __DIR__ . '/embedded.php';

    public function __construct(private readonly Preloading $preloading)
    {
    }

    /** @return array<string, callable(): string> */
    public function all(): array
    {
        return [
            'nothing is preloaded' => fn (): string => $this->says(
                Fpm::start(),
                'LibraryException',
                'ffi.enable',
                'preload.php',
            ),
            'the header alone is preloaded' => fn (): string => $this->says(
                $this->preloading->fpm(without: ['opcache.preload']),
                'LibraryException',
                'ffi.enable',
                'preload.php',
            ),
            'another library is named' => fn (): string => $this->says(
                $this->preloading->fpm(['lockd.library' => '/nowhere/liblockd.so'], without: ['ffi.preload']),
                'LibraryException',
                '/nowhere/liblockd.so',
                'lockd.library',
            ),
            'the library is not there' => fn (): string => $this->doesNotStart('liblockd-nowhere.so.1'),
        ];
    }

    private function says(Fpm $fpm, string ...$parts): string
    {
        return self::found((new Request($fpm->socket('worker'), self::SCRIPT, []))->answer(), ...$parts);
    }

    private function doesNotStart(string ...$parts): string
    {
        try {
            $fpm = $this->preloading->fpm(['ffi.preload' => $this->preloading->headerOfNothing()]);
        } catch (RuntimeException $e) {
            return self::found($e->getMessage(), ...$parts);
        }
        throw new RuntimeException('php-fpm has started: ' . Request::short($fpm->log()));
    }

    private static function found(string $text, string ...$parts): string
    {
        foreach ($parts as $part) {
            if (!str_contains($text, $part)) {
                throw new RuntimeException("the message does not mention $part: " . Request::short($text));
            }
        }
        return 'said: ' . implode(', ', $parts);
    }
}
