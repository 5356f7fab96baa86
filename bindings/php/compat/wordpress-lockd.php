<?php

/**
 * Plugin Name: lockd
 * Description: Runs wp-cron.php on one web server at a time, and offers locks to other plugins.
 *
 * For wp-content/mu-plugins: link this file there, or require it from a file there.
 * Lockd\WordPress\Locks describes the constants that configure it, and what happens without a
 * lockd. Other plugins use that class like this:
 *
 *     \Lockd\WordPress\Locks::ofSite()->once('import', function () { … });
 *
 * WP-CLI's `wp cron event run` does not apply the filter used here, so it is not affected.
 */

declare(strict_types=1);

if (!class_exists(\Lockd\WordPress\Locks::class)) {
    require __DIR__ . '/../autoload.php';
}

// Run after all other filters, which might add jobs.
add_filter('pre_get_ready_cron_jobs', static function (mixed $jobs): mixed {
    return \Lockd\WordPress\Locks::ofSite()->readyCronJobs($jobs);
}, PHP_INT_MAX);
