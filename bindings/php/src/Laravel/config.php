<?php

/** The settings of lockd: see docs/laravel.md of the package lockd/lockd. */

declare(strict_types=1);

return [
    // The server: tcp://HOST:PORT or unix:/PATH; a cluster: tcp://HOST:PORT,HOST:PORT. Several
    // servers, each with its scheme, separated by commas, share the names. With ?resume after it,
    // locks of the cache and of onOneServer() may outlive a restart of the server.
    'url' => env('LOCKD_URL', 'tcp://127.0.0.1:20934'),

    // What this application is called in the server's listings. Null: app.name.
    'owner' => env('LOCKD_OWNER'),

    // The limit for connecting, and for every answer that the server gives at once, in seconds.
    'timeout' => env('LOCKD_TIMEOUT', 5),

    // What the name of each lock begins with on the server. Null: cache.prefix, as for Laravel's
    // own locks. Empty: nothing, so that other programs can use the same locks.
    'prefix' => env('LOCKD_PREFIX'),

    // Whether withoutOverlapping() and onOneServer() use lockd. Null: if it is the default store.
    'scheduler' => env('LOCKD_SCHEDULER'),

    // Whether commands with --isolated use lockd. Null: if it is the default store.
    'commands' => env('LOCKD_COMMANDS'),

    // How many minutes after its minute an event with onOneServer() may get its turn.
    'late_minutes' => env('LOCKD_LATE_MINUTES', 10),
];
