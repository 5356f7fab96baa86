<?php

declare(strict_types=1);

namespace Lockd\Tests\Versions;

use RuntimeException;

/** What is tried with each version of PHP. Knows nothing of how a version is started. */
final class Trials
{
    /** Tests of classes that use no sockets, processes or fibers, which not every version has here. */
    private const ALONE = [
        'Internal/AbsenceTest.php', 'Internal/RetryPacerTest.php',
        'Message/AddressTest.php', 'Message/RendezvousTest.php',
    ];
    /** Tests of the manifest for Composer, which is a program of the installed PHP. */
    private const OF_THE_MANIFEST = 'Composer/';
    /** How each trial says how many files or tests there were; a skipped test is no success. */
    private const SUCCESS = [
        'load' => '/^(\d+) classes/',
        'compile' => '/^No syntax errors detected in \S+$/',
        'test' => '/^OK \((\d+) tests?/m',
    ];

    private string $phpunit;

    /** @param string $package the directory of the package */
    public function __construct(public readonly string $package)
    {
        $this->phpunit = trim((string) shell_exec('command -v phpunit'))
            ?: throw new RuntimeException('there is no phpunit');
    }

    /** @return list<string> the directories that the trials read */
    public function directories(): array
    {
        return [$this->package, '/usr/share/php', dirname($this->phpunit)];
    }

    /** @return array<string, list<string>> the arguments of php for each trial; the first word is its kind */
    public function of(Version $version): array
    {
        $trials = [];
        foreach ($version->newest ? $this->tests() : self::ALONE as $test) {
            $prepend = "auto_prepend_file=$this->package/tests/Versions/deprecations.php";
            // That group needs a program of the installed PHP, such as php-fpm.
            $phpunit = [$this->phpunit, '--exclude-group', 'installed-php', "tests/$test"];
            $trials["test $test"] = ['-d', $prepend, ...$phpunit];
        }
        $trials['load classes'] = ["$this->package/tests/Versions/load.php"];
        foreach (glob("$this->package/{src/*,compat}/[a-z]*.php", GLOB_BRACE) ?: [] as $script) {
            // To load a script would be to run it.
            $trials["compile $script"] = ['-d', 'error_reporting=-1', '-l', $script];
        }
        return $trials;
    }

    /** How many classes, scripts or tests a trial had; 0 if its output is not that of a success. */
    public function count(string $trial, string $output): int
    {
        $kind = (string) strstr($trial, ' ', true);
        return preg_match(self::SUCCESS[$kind], trim($output), $parts) === 1 ? (int) ($parts[1] ?? 1) : 0;
    }

    /** @return list<string> all files with tests of the package */
    private function tests(): array
    {
        $files = glob("$this->package/tests/*/*Test.php") ?: [];
        $tests = array_map(fn (string $file) => substr($file, strlen("$this->package/tests/")), $files);
        return array_values(array_filter($tests, static fn ($test) => !str_starts_with($test, self::OF_THE_MANIFEST)));
    }
}
