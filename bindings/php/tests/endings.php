<?php

/**
 * How requests to php-fpm end, and when the locks are free that they held: a table of all ways, with PHP's streams
 * and with liblockd; and whether it is said what is wrong where liblockd cannot be used. Ends with 0 only if each is
 * as it must be.
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

// An exit, unlike a signal, lets everything that was started go with its object.
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
                // Whatever hangs in it now, the next row is to begin with none of it.
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
