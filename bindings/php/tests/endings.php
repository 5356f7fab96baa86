<?php

/**
 * Runs requests to php-fpm that end in every possible way, and prints a table of when their locks
 * are free, with PHP's streams and with liblockd. Then checks that the messages name each mistake
 * in the configuration for liblockd. Exits with 0 only if every result is as expected.
 *
 *     php bindings/php/tests/endings.php
 */

declare(strict_types=1);

require __DIR__ . '/bootstrap.php';

use Lockd\Tests\Fpm\Endings;
use Lockd\Tests\Fpm\Fpm;
use Lockd\Tests\Fpm\Mistakes;
use Lockd\Tests\Fpm\Preloading;
use Lockd\Tests\Fpm\Program;
use Lockd\Tests\Fpm\Trial;
use Lockd\Tests\Support\Server;

// Unlike a signal, exit runs the destructors that end the servers.
pcntl_async_signals(true);
foreach ([SIGINT => 130, SIGTERM => 143, SIGHUP => 129] as $signal => $status) {
    pcntl_signal($signal, fn () => exit($status));
}

exit((function (): int {
    $began = microtime(true);
    Program::find('cgi-fcgi');
    $server = new Server();
    $preloading = new Preloading();
    $start = [
        'streams' => static fn (): Trial => new Trial($server, Fpm::start([], Endings::POOLS), 'streams'),
        'FFI' => static fn (): Trial => new Trial($server, $preloading->fpm(pools: Endings::POOLS), 'FFI'),
    ];
    $columns = array_map(static fn (callable $start): Trial => $start(), $start);
    $rows = [];
    foreach (Endings::all() as $ending) {
        $rows[$ending->name] = static fn (Trial $trial): string => $trial->run($ending);
    }
    $rows['waiting: longer than the time limit'] = static fn (Trial $trial): string => $trial->outwaits();

    $wrong = [];
    $line = "%-40s %-28s %s\n";
    printf($line, 'ending', ...array_keys($columns));
    foreach ($rows as $name => $run) {
        $results = [];
        foreach ($columns as $transport => $trial) {
            try {
                $results[] = $run($trial);
            } catch (Throwable $e) {
                $results[] = 'WRONG';
                $wrong[] = "$name, $transport: {$e->getMessage()}";
                // Something may still hang in it, so the next row begins with a new one.
                $columns[$transport] = $start[$transport]();
            }
        }
        printf($line, $name, ...$results);
    }

    echo "\nset up for liblockd, but\n";
    foreach ((new Mistakes($preloading))->all() as $name => $run) {
        try {
            $result = $run();
        } catch (Throwable $e) {
            $result = 'WRONG';
            $wrong[] = "$name: {$e->getMessage()}";
        }
        printf("%-40s %s\n", $name, $result);
    }
    printf("\n%s%.0f s\n", $wrong === [] ? '' : implode("\n", $wrong) . "\n", microtime(true) - $began);
    return $wrong === [] ? 0 : 1;
})());
