<?php

/**
 * Plugin Name: lockd
 * Description: Runs wp-cron.php on one web server at a time, and has locks for other plugins.
 *
 * For wp-content/mu-plugins: link this file there, or require it from one that is there. The constants that it goes
 * by, and what happens without a lockd, are described at Lockd\WordPress\Locks, which other plugins use like this:
 *
 *     \Lockd\WordPress\Locks::ofSite()->once('import', function () { … });
 *
 * WP-CLI's `wp cron event run` does not ask what is due in a way that could be stopped here.
 */

declare(strict_types=1);

if (!class_exists(\Lockd\WordPress\Locks::class)) {
    require __DIR__ . '/../autoload.php';
}

// After everybody else, who might find something to do after all.
add_filter('pre_get_ready_cron_jobs', static function (mixed $jobs): mixed {
    return \Lockd\WordPress\Locks::ofSite()->readyCronJobs($jobs);
}, PHP_INT_MAX);
