<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Symfony\LockdSemaphoreStore;
use Lockd\Symfony\LockdStore;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use Symfony\Bundle\FrameworkBundle\FrameworkBundle;
use Symfony\Component\Lock\Key;
use Symfony\Component\Lock\Store\CombinedStore;
use Symfony\Component\Lock\Store\FlockStore;
use Symfony\Component\Lock\Store\InMemoryStore;

/** The bundle in an application with the real FrameworkBundle, compiled and dumped. */
final class LockdBundleTest extends TestCase
{
    /** A service that has all kinds of factories that a service can ask for. */
    private const PROBE = <<<'PHP'
        <?php
        namespace App;
        use Symfony\Component\Lock\LockFactory;
        use Symfony\Component\Semaphore\SemaphoreFactory;
        final class Probe
        {
            public function __construct(
                public LockFactory $autowired,
                public LockFactory $invoiceLockFactory,
                public LockFactory $bothLockFactory,
                public LockFactory $localLockFactory,
                public LockFactory $byId,
                public LockFactory $made,
                public SemaphoreFactory $semaphores,
            ) {
            }

            public function storeOf(string $factory): object
            {
                $factory = $this->$factory;
                return (fn (): object => $this->store)->call($factory);
            }
        }
        PHP;

    private const LOCK = <<<'YAML'
        framework:
            lock:
                default: '%env(LOCK_DSN)%'
                invoice: '%env(INVOICE_DSN)%'
                both: ['%env(LOCK_DSN)%', '%env(OTHER_DSN)%']
                local: in-memory
        YAML;

    /** The semaphores are defined as FrameworkBundle defines them since Symfony 6.1. */
    private const SERVICES = <<<'YAML'
        services:
            App\Probe:
                public: true
                autowire: true
                arguments: { $byId: '@lock.default.factory', $made: '@app.made', $semaphores: '@app.semaphores' }
            app.made:
                class: Symfony\Component\Lock\LockFactory
                arguments:
                    - !service
                        class: Symfony\Component\Lock\PersistingStoreInterface
                        factory: [Symfony\Component\Lock\Store\StoreFactory, createStore]
                        arguments: ['%env(OTHER_DSN)%']
            app.semaphore.store:
                class: Symfony\Component\Semaphore\PersistingStoreInterface
                factory: [Symfony\Component\Semaphore\Store\StoreFactory, createStore]
                arguments: ['%env(SEMAPHORE_DSN)%']
            app.semaphores:
                class: Symfony\Component\Semaphore\SemaphoreFactory
                arguments: ['@app.semaphore.store']
        YAML;

    private Server $server;

    public static function setUpBeforeClass(): void
    {
        self::assertTrue(
            class_exists(FrameworkBundle::class),
            'symfony/framework-bundle is missing: install it with Composer, or php-symfony-framework-bundle'
        );
    }

    protected function setUp(): void
    {
        $this->server = new Server();
    }

    private function application(): Application
    {
        $application = new Application([
            'LOCK_DSN' => Application::dsn($this->server),
            'INVOICE_DSN' => Application::dsn($this->server) . '?wait=0.01',
            'SEMAPHORE_DSN' => Application::dsn($this->server),
            'OTHER_DSN' => "lockd+unix://{$this->server->socket()}?owner=other",
        ]);
        $application->write('config/packages/lock.yaml', self::LOCK);
        $application->write('config/services.yaml', self::SERVICES);
        $application->write('src/Probe.php', self::PROBE);
        return $application;
    }

    /** @param array<string, string> $environment */
    private static function output(Application $application, string $script, array $environment = []): string
    {
        $probe = "\$probe = \$container->get(App\\Probe::class);\n";
        [$output, $status] = $application->run($probe . $script, $environment);
        self::assertSame(0, $status, $output);
        return $output;
    }

    public function testEveryServiceThatIsMadeFromADsnHasOurStore(): void
    {
        $script = 'foreach (["autowired", "invoiceLockFactory", "bothLockFactory", "localLockFactory", "byId", "made",
            "semaphores"] as $name) {
            echo $name, " ", get_class($probe->storeOf($name)), "\n";
        }';
        self::assertSame([
            'autowired ' . LockdStore::class,
            'invoiceLockFactory ' . LockdStore::class,
            'bothLockFactory ' . CombinedStore::class,
            'localLockFactory ' . InMemoryStore::class,
            'byId ' . LockdStore::class,
            'made ' . LockdStore::class,
            'semaphores ' . LockdSemaphoreStore::class,
        ], explode("\n", trim(self::output($this->application(), $script))));
    }

    public function testTheirLocksAreOnTheServer(): void
    {
        $script = '$client = Lockd\Client::connect("tcp" . strstr(getenv("LOCK_DSN"), ":"));
            $locks = [];
            foreach (["autowired", "invoiceLockFactory", "byId", "made"] as $name) {
                $locks[] = $lock = $probe->$name->createLock($name);
                $lock->acquire() || exit("$name is held");
            }
            $locks[] = $slot = $probe->semaphores->createSemaphore("semaphore", 3);
            $slot->acquire() || exit("there is no slot");
            foreach ($client->list() as $lock) {
                echo $lock->name, " ", $lock->limit, " ", count($lock->holders), "\n";
            }';
        self::assertSame([
            'autowired 1 1',
            'byId 1 1',
            'invoiceLockFactory 1 1',
            'made 1 1',
            'semaphore 3 1',
        ], explode("\n", trim(self::output($this->application(), $script))));
    }

    public function testAListOfServersIsCombined(): void
    {
        $second = new Server();
        $script = '$lock = $probe->bothLockFactory->createLock("a"); $lock->acquire(); $lock->acquire() && print "held";
            foreach (["LOCK_DSN", "OTHER_DSN"] as $name) {
                $client = Lockd\Client::connect("tcp" . strstr(getenv($name), ":"));
                echo " ", $client->inspect("a")->holders;
            }';
        $environment = ['OTHER_DSN' => Application::dsn($second)];
        self::assertSame('held 1 1', self::output($this->application(), $script, $environment));
    }

    public function testTheStoreIsChosenWhenTheApplicationRunsAndNotWhenItIsCompiled(): void
    {
        $application = $this->application();
        // The class of a container is called by a hash of what it is compiled from.
        $script = 'echo get_class($probe->storeOf("autowired")), " ", get_class($kernel->getContainer());';
        [$first, $container] = explode(' ', self::output($application, $script));
        $dumped = glob("{$application->directory()}/var/cache/test/*/*.php");
        self::assertSame(LockdStore::class, $first);
        self::assertNotEmpty($dumped);
        $second = self::output($application, $script, ['LOCK_DSN' => 'flock']);
        self::assertSame(FlockStore::class . " $container", $second);
        self::assertSame($dumped, glob("{$application->directory()}/var/cache/test/*/*.php"));
    }

    public function testFactoriesForTheSameServersAreOneOwner(): void
    {
        $script = 'use Symfony\Component\Lock\Exception\LockConflictedException;
            $ours = $probe->autowired->createLock("a");
            $ours->acquire();
            foreach (["byId", "invoiceLockFactory"] as $name) {
                try {
                    $probe->$name->createLock("a")->acquire(true);
                } catch (LockConflictedException $e) {
                    echo $e->getMessage(), "\n";
                }
            }
            $ours->acquireRead();
            var_dump($probe->invoiceLockFactory->createLock("a")->acquireRead(true));';
        $says = "another key of this process holds \"a\"\n";
        self::assertSame("$says{$says}bool(true)\n", self::output($this->application(), $script));
    }

    public function testAFactoryHasItsOwnLimitForWaiting(): void
    {
        $other = new LockdStore(Application::dsn($this->server));
        $other->save($key = new Key('a'));
        $script = 'use Symfony\Component\Lock\Exception\LockConflictedException;
            try {
                $probe->invoiceLockFactory->createLock("a")->acquire(true);
            } catch (LockConflictedException $e) {
                echo $e->getMessage(), "\n";
            }';
        self::assertSame(
            "\"a\" is held by others, after a wait of 0.01 s\n",
            self::output($this->application(), $script)
        );
        self::assertTrue($other->exists($key));
    }

    /** @dataProvider mistakes */
    public function testAMistakeInADsnIsAnException(string $variable, string $dsn, string $says): void
    {
        $script = '$container->get(App\Probe::class);';
        [$output, $status] = $this->application()->run($script, [$variable => $dsn]);
        self::assertNotSame(0, $status);
        self::assertStringContainsString($says, $output);
    }

    /** @return list<array{string, string, string}> */
    public static function mistakes(): array
    {
        return [
            ['LOCK_DSN', 'lockd://localhost:2626', '20934'],
            ['LOCK_DSN', 'message://localhost', 'a DSN is lockd://'],
            ['LOCK_DSN', 'lockd://localhost?ttl=5', 'no option "ttl"'],
            ['SEMAPHORE_DSN', 'lockd://localhost?wait=5', 'a semaphore does not wait'],
            // Symfony's own factory says this.
            ['LOCK_DSN', 'nonsense://localhost', 'Unsupported Connection: "nonsense://localhost"'],
            ['SEMAPHORE_DSN', 'nonsense://localhost', 'Unsupported Connection: "nonsense://localhost"'],
        ];
    }
}
