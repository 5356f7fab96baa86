<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Tests\Support\Recipe;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/**
 * The examples of docs/symfony.md in an application with the real FrameworkBundle, as they stand,
 * but with the address of a server of the test, and a short limit for waits.
 */
final class DocumentTest extends TestCase
{
    private const DOCUMENT = 'docs/symfony.md';
    private const DSN = 'lockd://10.0.0.1:20934';

    /** What a new project has, and names by which a script of the test gets private services. */
    private const SERVICES = <<<'YAML'
        services:
            _defaults: { autowire: true, autoconfigure: true }
            App\: { resource: '../src/', exclude: '../src/{Kernel.php,MainSchedule.php}' }
            App\Controller\: { resource: '../src/Controller/', tags: [controller.service_arguments] }

        YAML;

    private Server $server;
    private Application $application;

    protected function setUp(): void
    {
        $this->server = new Server();
        $environment = parse_ini_string(Recipe::in(self::DOCUMENT, '# .env', 'sh'));
        self::assertIsArray($environment);
        $environment = array_map($this->adapted(...), $environment);
        $this->application = new Application($environment + ['URL' => $this->server->tcp()]);
        $this->write('config/bundles.php', 'LockdBundle::class');
        $this->write('config/packages/lock.yaml', "lock: '%env(LOCK_DSN)%'");
        $this->application->write('src/Controller/.keep', '');
        $this->application->write('config/services.yaml', self::SERVICES);
    }

    private function adapted(string $text): string
    {
        $text = str_replace(self::DSN . '?wait=30', self::DSN . '?wait=0.05', $text);
        $text = str_replace(self::DSN, Application::dsn($this->server), $text);
        return str_replace('tcp://10.0.0.1:20934', $this->server->tcp(), $text);
    }

    /** Writes an example of the document to a file of the application. */
    private function write(string $path, string $text): void
    {
        $isPhp = str_ends_with($path, '.php');
        $example = Recipe::in(self::DOCUMENT, $text, $isPhp ? 'php' : 'yaml');
        $this->application->write($path, ($isPhp ? "<?php\n" : '') . $this->adapted($example));
    }

    /** Gives a private service a public name. */
    private function publish(string $name, string $id): void
    {
        $services = "services:\n    $name: { alias: $id, public: true }\n";
        $this->application->write("config/packages/$name.yaml", $services);
    }

    private function assertPrints(string $expected, string $script): void
    {
        $server = '$lockd = Lockd\Client::connect(getenv("URL"));' . "\n";
        self::assertSame([$expected, 0], $this->application->run($server . $script));
    }

    public function testWithoutTheBundleTheMessageIsAsTheDocumentSays(): void
    {
        $dsn = self::DSN . '?wait=30';
        $document = (string) file_get_contents(dirname(__DIR__, 2) . '/' . self::DOCUMENT);
        self::assertStringContainsString("`Unsupported Connection: \"$dsn\".`", $document);
        $this->expectExceptionMessage("Unsupported Connection: \"$dsn\".");
        \Symfony\Component\Lock\Store\StoreFactory::createStore($dsn);
    }

    /** @return iterable<int, array{string, string}> */
    public static function scripts(): iterable
    {
        yield ["LockdStore('lockd", 'called'];
        yield ['LockdSemaphoreStore(', 'called'];
    }

    /**
     * @dataProvider scripts
     * @param string $text in the example
     */
    public function testAnExampleWithoutTheFrameworkRuns(string $text, string $output): void
    {
        $example = $this->adapted(Recipe::in(self::DOCUMENT, $text));
        self::assertSame([$output, 0], Recipe::run($example, $this->server));
    }

    public function testAControllerWaitsForALimitedTime(): void
    {
        $this->write('src/Controller/InvoiceController.php', 'class InvoiceController');
        $route = 'pay: { path: "/invoice/{id}", controller: App\Controller\InvoiceController::pay }';
        $this->application->write('config/routes.yaml', $route);
        $this->assertPrints("200 Invoice 17 is paid.\n503 Another request works on this invoice.\n0", '
            $pay = function () use ($kernel): void {
                $response = $kernel->handle(Symfony\Component\HttpFoundation\Request::create("/invoice/17"));
                echo $response->getStatusCode(), " ", $response->getContent(), "\n";
            };
            $pay();
            $other = $lockd->acquire("invoice/17", 0.0);
            $pay();
            $other->release();
            echo $lockd->inspect("invoice/17")->holders;
        ');
    }

    public function testACommandRunsOnce(): void
    {
        $this->write('src/Command/ReportCommand.php', 'class ReportCommand');
        $this->assertPrints("No other process writes the report.\nAnother process writes the report.\n", '
            $console = new Symfony\Bundle\FrameworkBundle\Console\Application($kernel);
            $console->setAutoExit(false);
            $run = function () use ($console): void {
                $output = new Symfony\Component\Console\Output\BufferedOutput();
                $console->run(new Symfony\Component\Console\Input\ArrayInput(["app:report"]), $output);
                echo $output->fetch();
            };
            $run();
            $other = $lockd->acquire("app:report", 0.0);
            $run();
        ');
    }

    public function testAMessageIsRetriedWhileAnotherWorkerIsBusy(): void
    {
        $this->application->write('config/packages/messenger.yaml', 'framework: { messenger: { enabled: true } }');
        $this->write('src/Message/MakeReport.php', 'class MakeReport');
        $this->write('src/MessageHandler/MakeReportHandler.php', 'class MakeReportHandler');
        $this->publish('test.bus', 'messenger.default_bus');
        $this->assertPrints("1\ntrue another worker makes report 1", '
            use Symfony\Component\Messenger\Exception\RecoverableExceptionInterface;
            $bus = $container->get("test.bus");
            $handled = $bus->dispatch(new App\Message\MakeReport(1));
            echo count($handled->all(Symfony\Component\Messenger\Stamp\HandledStamp::class)), "\n";
            $other = $lockd->acquire("report/1", 0.0);
            try {
                $bus->dispatch(new App\Message\MakeReport(1));
            } catch (Symfony\Component\Messenger\Exception\HandlerFailedException $e) {
                $e = $e->getPrevious();
                echo json_encode($e instanceof RecoverableExceptionInterface), " ", $e->getMessage();
            }
        ');
    }

    public function testALimiterLocksEachStep(): void
    {
        $this->write('config/packages/rate_limiter.yaml', 'rate_limiter:');
        $this->publish('test.limiter', 'limiter.login');
        $this->assertPrints('yes yes busy yes no ', '
            $limiter = $container->get("test.limiter")->create("me");
            $consume = function () use ($limiter): void {
                try {
                    echo $limiter->consume()->isAccepted() ? "yes " : "no ";
                } catch (Symfony\Component\Lock\Exception\LockConflictedException) {
                    echo "busy ";
                }
            };
            $consume();
            $consume();
            $other = $lockd->acquire("login-me", 0.0);
            $consume();
            $other->release();
            $consume();
            $consume();
        ');
    }

    public function testASessionIsLockedWhileItIsOpen(): void
    {
        $this->write('config/packages/session.yaml', 'LockingSessionHandler:');
        $this->publish('test.sessions', 'app.sessions');
        $this->application->write('src/Controller/Counter.php', '<?php
            namespace App\Controller;
            use Symfony\Component\HttpFoundation\{Request, Response};
            final class Counter
            {
                public function count(Request $request): Response
                {
                    $session = $request->getSession();
                    $session->set("n", $session->get("n", 0) + 1);
                    $locks = \Lockd\Client::connect(getenv("URL"))->list("session/");
                    return new Response($session->get("n") . " " . iterator_count($locks) . " " . $session->getId());
                }
            }');
        $this->application->write('config/routes.yaml', 'n: { path: /n, controller: App\Controller\Counter::count }');
        $database = ['SESSION_DATABASE' => "sqlite:{$this->application->directory()}/sessions.db"];
        $script = '
            getenv("ID") || $container->get("test.sessions")->createTable();
            $cookies = array_filter([session_name() => getenv("ID")]);
            $request = Symfony\Component\HttpFoundation\Request::create("/n", "GET", [], $cookies);
            echo $kernel->handle($request)->getContent(), " ";
            echo iterator_count(Lockd\Client::connect(getenv("URL"))->list("session/"));';
        [$output, $status] = $this->application->run($script, $database);
        self::assertSame(0, $status, $output);
        [$count, $locksMeanwhile, $id, $locksAfter] = explode(' ', $output) + array_fill(0, 4, '');
        self::assertSame(['1', '1', '0'], [$count, $locksMeanwhile, $locksAfter]);
        self::assertSame(["2 1 $id 0", 0], $this->application->run($script, $database + ['ID' => $id]));
    }

    public function testNamedLocksAndSemaphores(): void
    {
        $this->write('config/packages/lock.yaml', 'import:');
        $this->write('config/packages/semaphores.yaml', 'Lockd\Symfony\LockdSemaphoreStore:');
        $this->publish('test.locks', 'lock.import.factory');
        $this->publish('test.semaphores', 'Symfony\Component\Semaphore\SemaphoreFactory');
        $this->assertPrints('import/1 1 gpu 4', '
            $lock = $container->get("test.locks")->createLock("import/1");
            $semaphore = $container->get("test.semaphores")->createSemaphore("gpu", 4);
            if ($lock->acquire(true) && $semaphore->acquire()) {
                echo "import/1 ", $lockd->inspect("import/1")->limit, " gpu ", $lockd->inspect("gpu")->limit;
            }
        ');
    }
}
