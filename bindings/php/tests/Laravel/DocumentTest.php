<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Illuminate\Bus\UniqueLock;
use Illuminate\Console\CommandMutex;
use Illuminate\Console\Scheduling\EventMutex;
use Lockd\Client;
use Lockd\Laravel\LockdServiceProvider;
use Lockd\Tests\Support\Recipe;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** The examples of docs/laravel.md, with the address of a server of the test. */
final class DocumentTest extends TestCase
{
    private const DOCUMENT = 'docs/laravel.md';

    private Server $server;

    protected function setUp(): void
    {
        $this->server = new Server();
    }

    protected function tearDown(): void
    {
        foreach (['URL', 'SCHEDULER', 'COMMANDS'] as $name) {
            unset($_ENV["LOCKD_$name"]);
        }
    }

    /** Executes an example in a process with an application, as `$app`. */
    private function assertPrints(string $output, string $example, string $before = '', string $after = ''): void
    {
        $url = var_export($this->server->tcp(), true);
        $directory = var_export($this->server->directory(), true);
        $application = "\$app = Lockd\\Tests\\Laravel\\Application::with([
            'lockd' => ['url' => $url, 'scheduler' => true],
            'cache' => ['stores' => ['file' => ['driver' => 'file', 'path' => $directory . '/values']]],
        ]);\n";
        self::assertSame([$output, 0], Recipe::run("$application$before\n$example\n$after", $this->server));
    }

    public function testTheEnvironment(): void
    {
        $lines = Recipe::in(self::DOCUMENT, 'LOCKD_URL', 'ini');
        $lines = str_replace('tcp://127.0.0.1:20934', $this->server->tcp(), $lines);
        $_ENV += parse_ini_string($lines, false, INI_SCANNER_RAW);
        $app = Application::with([]);
        self::assertTrue($app['cache']->store('lockd')->lock('report')->get());
        self::assertTrue(Client::connect($this->server->tcp())->inspect('shop_cache_report')->isHeld());
        self::assertSame([true, true], [$app->bound(EventMutex::class), $app->bound(CommandMutex::class)]);
    }

    public function testTheStore(): void
    {
        $example = Recipe::in(self::DOCUMENT, "'driver' => 'lockd'");
        $directory = var_export($this->server->directory(), true);
        $config = eval('return [' . str_replace('storage_path(', "($directory . '/' . ", $example) . '];');
        $app = Application::with(['cache' => $config, 'lockd' => ['url' => $this->server->tcp()]]);
        self::assertTrue($app['cache']->put('color', 'red', 60));
        self::assertSame('red', $app['cache']->store('file')->get('color'));
        self::assertTrue($app['cache']->lock('report')->get());
        self::assertTrue(Client::connect($this->server->tcp())->inspect('shop_cache_report')->isHeld());
        $app['cache']->flush();
        rmdir($this->server->directory() . '/framework/cache/data');
        rmdir($this->server->directory() . '/framework/cache');
        rmdir($this->server->directory() . '/framework');
    }

    public function testALock(): void
    {
        $this->assertPrints('called', Recipe::in(self::DOCUMENT, "Cache::store('lockd')->lock("));
    }

    public function testAFunnel(): void
    {
        $locks = '$locks = $app->make(Lockd\Laravel\LockdLockProvider::class);';
        $this->assertPrints('called', Recipe::in(self::DOCUMENT, '->funnel('), $locks);
    }

    public function testTheSchedule(): void
    {
        $this->assertPrints(
            'locked',
            Recipe::in(self::DOCUMENT, '$schedule->command('),
            '$schedule = $app->make(Illuminate\Console\Scheduling\Schedule::class);',
            '[$event] = $schedule->events();
            $isLocked = $event->onOneServer && $event->mutex->create($event) && !$event->filtersPass($app);
            echo $isLocked ? "locked" : "free";'
        );
    }

    public function testAUniqueJob(): void
    {
        $example = Recipe::in(self::DOCUMENT, 'uniqueVia()');
        $this->assertPrints('once', $example, '', '
            $unique = new ' . UniqueLock::class . '(Cache::store("lockd"));
            echo $unique->acquire(new WriteReport()) && !$unique->acquire(new WriteReport()) ? "once" : "twice";
            Cache::store("file")->flush();
            rmdir(Cache::store("file")->getDirectory());');
    }

    /** The settings that the document names are those that there are. */
    public function testTheSettings(): void
    {
        $document = (string) file_get_contents(dirname(__DIR__, 2) . '/' . self::DOCUMENT);
        preg_match_all('/^\| `(LOCKD_\w+)`/m', $document, $named);
        $config = dirname((string) (new \ReflectionClass(LockdServiceProvider::class))->getFileName()) . '/config.php';
        preg_match_all("/'(LOCKD_\\w+)'/", (string) file_get_contents($config), $known);
        self::assertEqualsCanonicalizing($known[1], $named[1]);
    }
}
