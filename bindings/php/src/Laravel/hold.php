<?php

/** The process that holds the locks of `onOneServer()`: see {@see Lockd\Laravel\Holder}. */

declare(strict_types=1);

require __DIR__ . '/../../autoload.php';

(new Lockd\Laravel\Holder(STDIN, STDOUT))->run();
