<?php

/**
 * The script that php-fpm runs for every request of the tests. The lock is in a global variable, as
 * in many scripts.
 */

declare(strict_types=1);

require __DIR__ . '/../bootstrap.php';

$script = new Lockd\Tests\Fpm\Script($_GET);
$ending = $script->ending();
if ($ending->before !== null) {
    ($ending->before)($script);
}
$client = $script->connect();
$lock = $script->acquire($client);
if ($ending->then !== null) {
    ($ending->then)($script, $lock);
}
