<?php

/**
 * A request to wp-cron.php, or to a page of the site, with the plugin. It prints the due jobs and
 * "goes on" until it is told to end. Then its process lives on until that is told to end, too.
 *
 *     php cron.php URL PREFIX cron|page [TIMEOUT]
 */

declare(strict_types=1);

[, $url, $prefix, $what] = $argv;

require __DIR__ . '/stubs.php';

define('DB_NAME', 'shop');
define('LOCKD_URL', $url);
if (isset($argv[4])) {
    define('LOCKD_TIMEOUT', $argv[4]);
}
if ($what === 'cron') {
    define('DOING_CRON', true);
}
$GLOBALS['wpdb'] = (object) ['prefix' => $prefix];

require __DIR__ . '/../../compat/wordpress-lockd.php';

$jobs = apply_filters('pre_get_ready_cron_jobs', null) ?? ['due'];
$again = apply_filters('pre_get_ready_cron_jobs', null) ?? ['due'];
echo json_encode([$jobs, $again]), "\n";
fgets(STDIN);
register_shutdown_function(static function (): void {
    echo "over\n";
    fgets(STDIN);
});
