<?php

declare(strict_types=1);

namespace Lockd\Tests\WordPress;

use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
use Lockd\Message\MessageClient;
use Lockd\Tests\Support\Server;
use Lockd\WordPress\Locks;
use PHPUnit\Framework\TestCase;

/** What a site's administrators are told of a lockd that grants no locks. */
final class OutageTest extends TestCase
{
    private Server $server;
    private string $oldLog;

    public static function setUpBeforeClass(): void
    {
        require_once __DIR__ . '/stubs.php';
    }

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->oldLog = (string) ini_set('error_log', $this->server->directory() . '/errors');
        $GLOBALS['database'] = $this->server->directory() . '/database';
        file_put_contents($GLOBALS['database'], '[]');
        $GLOBALS['capabilities'] = ['manage_options'];
    }

    protected function tearDown(): void
    {
        ini_set('error_log', $this->oldLog);
        $GLOBALS['database'] = '/dev/null';
        $GLOBALS['alloptions'] = null;
    }

    /** A new request to the site, with the plugin. */
    private function request(): Locks
    {
        $GLOBALS['hooks'] = [];
        $GLOBALS['alloptions'] = null;
        $locks = new Locks($this->server->tcp(), static fn (): string => 'shop/wp_/');
        $locks->register();
        return $locks;
    }

    /** The notices on a page of the administration. */
    private function notices(): string
    {
        ob_start();
        do_action('admin_notices');
        return (string) ob_get_clean();
    }

    /** @return array<string, mixed> the result of the plugin's test in Site Health */
    private function siteHealth(): array
    {
        $tests = apply_filters('site_status_tests', ['direct' => ['other' => []], 'async' => []]);
        self::assertSame(['other', 'lockd'], array_keys($tests['direct']));
        return $tests['direct']['lockd']['test']();
    }

    public function testANoticeSaysSinceWhenAndWhyAndWhatToDo(): void
    {
        $this->request();
        self::assertSame('', $this->notices());
        self::assertSame('good', $this->siteHealth()['status']);

        $this->server->kill();
        $since = gmdate('Y-m-d H:i');
        self::assertNull($this->request()->acquire('import'));
        $this->request();
        $notice = $this->notices();
        self::assertStringStartsWith('<div class="notice notice-error">', $notice);
        self::assertMatchesRegularExpression('/has granted no locks since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d /', $notice);
        self::assertGreaterThanOrEqual($since, substr((string) strstr($notice, 'since '), 6, 16));
        foreach (['cannot connect to tcp://127.0.0.1:', 'on ' . gethostname(), 'correct LOCKD_URL'] as $text) {
            self::assertStringContainsString($text, $notice);
        }
        self::assertSame('critical', $this->siteHealth()['status']);
        self::assertStringContainsString('cannot connect', $this->siteHealth()['description']);
    }

    public function testTheFirstFailureIsRememberedUntilTheServerAnswers(): void
    {
        $this->server->kill();
        $this->request()->acquire('import');
        $first = file_get_contents($GLOBALS['database']);
        self::assertNull((new Locks('nowhere', static fn (): string => ''))->acquire('other'));
        self::assertSame($first, file_get_contents($GLOBALS['database']), 'it was written again');

        $this->server->startAgain();
        $holder = new Locks($this->server->tcp(), static fn (): string => 'shop/wp_/');
        $lock = $holder->acquire('import');
        self::assertNotNull($lock);
        $this->request();
        self::assertSame('', $this->notices());

        $this->request()->report(new ConnectionLostException('oops'), 'import');
        self::assertNotSame('', $this->notices());
        self::assertNull($this->request()->acquire('import'), 'it is busy');
        self::assertSame('', $this->notices());
    }

    public function testADeadlockIsNoOutage(): void
    {
        $this->request()->report(new DeadlockException('each waits for the other'), 'import');
        self::assertSame('', $this->notices());
    }

    public function testOnlyThoseWhoManageTheSiteAreTold(): void
    {
        $this->server->kill();
        $this->request()->acquire('import');
        $GLOBALS['capabilities'] = ['edit_posts'];
        self::assertSame('', $this->notices());
    }

    public function testTextsAreEscaped(): void
    {
        $this->request()->report(new ConnectionLostException('<script>'), 'import');
        self::assertStringContainsString('&lt;script&gt;', $this->notices());
        self::assertStringContainsString('&lt;script&gt;', $this->siteHealth()['description']);
    }

    public function testAnAdministratorsPageDoesNotConnect(): void
    {
        $locks = $this->request();
        $this->notices();
        $this->siteHealth();
        $observer = MessageClient::connect($this->server->tcp());
        self::assertSame(1, $observer->rpc('stats')['connections']);
        self::assertNotNull($locks->acquire('import'));
        self::assertSame(2, $observer->rpc('stats')['connections']);
    }
}
