<?php

declare(strict_types=1);

namespace Lockd\Tests\WordPress;

use Lockd\Tests\Support\Recipe;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Examples of docs/wordpress.md, with the place of the package and the address of a server. */
final class DocumentTest extends TestCase
{
    /** Runs code on a site with the server's locks. */
    private function assertPrints(string $output, Server $server, string ...$code): void
    {
        $site = sprintf(
            "require '%s/stubs.php';\n\$wpdb = (object) ['prefix' => 'wp_'];\ndefine('LOCKD_URL', '%s');",
            __DIR__,
            $server->tcp(),
        );
        $code = str_replace('/path/to/bindings/php', dirname(__DIR__, 2), implode("\n", $code));
        self::assertSame([$output, 0], Recipe::run("$site\n$code", $server));
    }

    public function testThePluginAndItsLocks(): void
    {
        $plugin = Recipe::in('docs/wordpress.md', 'wordpress-lockd.php');
        $locks = Recipe::in('docs/wordpress.md', "once('import'");
        $work = '$body = $callback = theWork(...);';
        // With the plugin loaded twice, the hooks are there once.
        $hooks = 'echo count(array_merge(...$hooks["pre_get_ready_cron_jobs"]));';
        $again = 'do_action("shop_sync");';
        $this->assertPrints('called1called' . 'called', new Server(), $plugin, $plugin, $work, str_replace(
            "Locks::ofSite()->once('resize'",
            "$hooks\nLocks::ofSite()->once('resize'",
            $locks,
        ), $again);
    }

    public function testTheSecretIsInTheFileAfterTheAddress(): void
    {
        $secret = tempnam(sys_get_temp_dir(), 'lockd-secret-');
        file_put_contents($secret, "0123456789abcdef0123456789abcdef\n");
        $server = new Server(['--auth-token-file', $secret]);
        $document = (string) file_get_contents(dirname(__DIR__, 2) . '/docs/wordpress.md');
        self::assertSame(1, preg_match("/`(define\\('LOCKD_URL'[^`]*)`/", $document, $example));
        $define = strtr($example[1], ['tcp://10.0.0.1:20934' => $server->tcp(), '/etc/lockd/secret' => $secret]);
        $stubs = sprintf("require '%s/stubs.php';\n\$wpdb = (object) ['prefix' => 'wp_'];", __DIR__);
        $once = 'Lockd\WordPress\Locks::ofSite()->once("import", theWork(...));';
        try {
            self::assertSame(['called', 0], Recipe::run("$stubs\n$define\n$once", $server));
        } finally {
            unlink($secret);
        }
    }

    public function testTheLimitForActionScheduler(): void
    {
        $server = new Server();
        $limit = Recipe::in('docs/wordpress.md', 'limitActionScheduler(');
        $ask = 'echo apply_filters("action_scheduler_queue_runner_concurrent_batches", 1);';
        $this->assertPrints('2', $server, $limit, $ask);
    }
}
