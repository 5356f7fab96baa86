<?php

/**
 * Plugin Name: lockd
 * Description: Runs the site's cron events on one web server at a time, and offers locks to other plugins.
 *
 * For wp-content/mu-plugins: link this file there as 00-lockd.php, or require it from a file of that
 * name. WordPress loads these plugins by name, and others there may use locks while they are loaded.
 * Lockd\WordPress\Locks describes the constants that configure it, and what happens without a
 * lockd. Other plugins use that class like this:
 *
 *     \Lockd\WordPress\Locks::ofSite()->once('import', function () { … });
 *
 * This file may be loaded several times.
 */

declare(strict_types=1);

if (!class_exists(\Lockd\WordPress\Locks::class)) {
    require __DIR__ . '/../autoload.php';
}

\Lockd\WordPress\Locks::ofSite()->register();
