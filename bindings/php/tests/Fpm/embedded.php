<?php

/**
 * The script that php-fpm runs to check whether liblockd can be used.
 */

declare(strict_types=1);

require __DIR__ . '/../../autoload.php';

try {
    Lockd\Client::embedded();
    echo 'It can be used.';
} catch (Lockd\Exception\LockdException $e) {
    echo get_class($e), ': ', $e->getMessage();
}
