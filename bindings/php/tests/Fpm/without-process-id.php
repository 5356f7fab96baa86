<?php

/** A request's script in a php-fpm whose functions that tell the process id are disabled. */

declare(strict_types=1);

use Lockd\Client;
use Lockd\Exception\ConnectException;

require __DIR__ . '/../bootstrap.php';

echo 'forks ', function_exists('pcntl_fork') ? 'yes' : 'no', "\n";
try {
    $lock = Client::connect($_GET['server'])->acquire('web');
    echo 'holds ', var_export($lock?->isHeld(), true), "\n";
} catch (ConnectException $e) {
    echo 'holds nothing: ', $e->getMessage(), "\n";
}
