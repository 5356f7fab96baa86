<?php

/**
 * Tries the package with versions of PHP that are not installed: all of them load all of it, and run
 * the tests that need no server; the newest runs all tests. A deprecation in the package is a
 * failure. Prints a table, and exits with 0 only if nothing failed.
 *
 *     php bindings/php/tests/versions.php NODE_MODULES
 *
 * NODE_MODULES is the directory that `npm ci` makes of Versions/package.json.
 */

declare(strict_types=1);

require __DIR__ . '/bootstrap.php';

use Lockd\Tests\Versions\Jobs;
use Lockd\Tests\Versions\Trials;
use Lockd\Tests\Versions\Version;

exit((function (string $modules): int {
    $trials = new Trials(dirname(__DIR__));
    // Before the directory is changed: the path may be relative.
    $modules = realpath($modules) ?: throw new RuntimeException("there is no $modules");
    chdir($trials->package);
    $versions = Version::all($modules, $trials->directories());
    $jobs = new Jobs();
    foreach ($versions as $version) {
        foreach ($trials->of($version) as $trial => $arguments) {
            $jobs->add("$version->name $trial", static fn (string $log) => $version->start($arguments, $log));
        }
    }
    $results = $jobs->run();

    $line = "%-5s %-10s %s\n";
    printf($line, 'PHP', 'classes', 'tests');
    $failures = [];
    foreach ($versions as $version) {
        $sums = ['load' => 0, 'compile' => 0, 'test' => 0];
        foreach ($trials->of($version) as $trial => $arguments) {
            [$status, $output] = $results["$version->name $trial"];
            $count = $trials->count($trial, $output);
            $sums[strstr($trial, ' ', true)] += $count;
            if ($status !== 0 || $count === 0) {
                $failures[] = "PHP $version->name, $trial: status $status\n$output\n";
            }
        }
        printf($line, $version->name, $sums['load'], $sums['test']);
    }
    echo "\n", implode("\n", $failures);
    return $failures ? 1 : 0;
})($argv[1]));
