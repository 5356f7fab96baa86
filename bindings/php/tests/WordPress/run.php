<?php

/**
 * A run of the site's cron events with the plugin: of wp-cron.php, or of WP-CLI's command. Before
 * version 2.8 the command read the events without the filter.
 *
 *     php run.php URL DATABASE wp-cron|command|old-command [due-now]
 *
 * It prints "begins" when WordPress has been loaded and goes on when it is given a line. A job
 * prints its hook. A job named "slow" ends when it is given a line.
 */

declare(strict_types=1);

[, $url, $file, $what] = $argv;
define('DB_NAME', 'shop');
define('LOCKD_URL', $url);
define('WP_CLI', $what !== 'wp-cron');
if ($what === 'wp-cron') {
    define('DOING_CRON', true);
}

require __DIR__ . '/stubs.php';

$database = $file;
$wpdb = (object) ['prefix' => 'wp_'];

require __DIR__ . '/../../compat/wordpress-lockd.php';

foreach (['first', 'slow', 'last'] as $hook) {
    add_action($hook, static function () use ($hook): void {
        echo "$hook\n";
        if ($hook === 'slow') {
            fgets(STDIN);
            // Jobs change the schedule, too. Nothing stops them in the middle.
            wp_unschedule_event(1, 'other', []);
            echo "slow ends\n";
        }
    });
}
wp_load_alloptions();
echo "begins\n";
fgets(STDIN);

$events = static function (iterable $due): void {
    foreach ($due as $time => $hooks) {
        foreach ($hooks as $hook => $events) {
            foreach ($events as $event) {
                if ($event['schedule']) {
                    wp_reschedule_event($time, $event['schedule'], $hook, $event['args']);
                }
                wp_unschedule_event($time, $hook, $event['args']);
                do_action_ref_array($hook, $event['args']);
            }
        }
    }
};
$isDue = static fn (int $time): bool => $time <= time();
$body = static fn () => $events(match ($what) {
    'old-command' => array_filter(_get_cron_array(), $isDue, ARRAY_FILTER_USE_KEY),
    default => wp_get_ready_cron_jobs(),
});
if (WP_CLI) {
    WP_CLI::invoke('cron event run', array_fill_keys(array_slice($argv, 4), true), $body);
} else {
    $body();
}
echo "done\n";
