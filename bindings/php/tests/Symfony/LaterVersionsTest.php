<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Tests\Support\Recipe;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/**
 * What Symfony does with locks in later versions than the tests have: which calls it makes, in which
 * order, recorded as small classes with the names of the real ones.
 */
final class LaterVersionsTest extends TestCase
{
    /**
     * Messenger since 7.3: the process that dispatches a message acquires the lock, and the one that
     * handles it releases it.
     */
    private const DEDUPLICATION = <<<'PHP'
        <?php
        namespace Symfony\Component\Messenger\Stamp;
        if (class_exists(DeduplicateStamp::class)) {
            return;
        }
        final class DeduplicateStamp implements StampInterface
        {
            private \Symfony\Component\Lock\Key $key;
            public function __construct(string $key)
            {
                $this->key = new \Symfony\Component\Lock\Key($key);
            }
            public function getKey(): \Symfony\Component\Lock\Key
            {
                return $this->key;
            }
        }
        PHP;

    private const MIDDLEWARE = <<<'PHP'
        <?php
        namespace App;
        use Symfony\Component\Lock\LockFactory;
        use Symfony\Component\Messenger\Envelope;
        use Symfony\Component\Messenger\Middleware\{MiddlewareInterface, StackInterface};
        use Symfony\Component\Messenger\Stamp\{DeduplicateStamp, ReceivedStamp};
        final class Deduplication implements MiddlewareInterface
        {
            public function __construct(private LockFactory $locks)
            {
            }

            public function handle(Envelope $envelope, StackInterface $stack): Envelope
            {
                $key = $envelope->last(DeduplicateStamp::class)?->getKey();
                $isReceived = $envelope->last(ReceivedStamp::class) !== null;
                $lock = $key === null ? null : $this->locks->createLockFromKey($key, 300.0, false);
                if ($lock !== null && !$isReceived && !$lock->acquire()) {
                    return $envelope;
                }
                $envelope = $stack->next()->handle($envelope, $stack);
                $isReceived && $lock?->release();
                return $envelope;
            }
        }
        PHP;

    private const MESSENGER = <<<'YAML'
        framework:
            lock: '%env(LOCK_DSN)%'
            messenger:
                transports: { later: 'in-memory://?serialize=true', now: 'sync://' }
                routing: { App\Later: later, App\Now: now }
                buses: { messenger.bus.default: { middleware: [deduplicate_middleware] } }
        services:
            messenger.middleware.deduplicate_middleware:
                class: App\Deduplication
                arguments: ['@lock.factory']
            App\Handler: { tags: [{ name: messenger.message_handler, handles: App\Now }] }
            test.bus: { alias: messenger.default_bus, public: true }
            test.transport: { alias: messenger.transport.later, public: true }
        YAML;

    private const HANDLER = <<<'PHP'
        <?php
        namespace App;
        final class Handler
        {
            public function __invoke(Now $message): int
            {
                return \Lockd\Client::connect(getenv('URL'))->inspect('one')->holders;
            }
        }
        PHP;

    /** The Scheduler's classes since 6.3, as far as a schedule with a lock needs them. */
    private const SCHEDULER = <<<'PHP'
        namespace Symfony\Component\Scheduler {
            interface ScheduleProviderInterface
            {
                public function getSchedule(): Schedule;
            }
            final class RecurringMessage
            {
                public static function every(string $frequency, object $message): self
                {
                    return new self();
                }
            }
            final class Schedule
            {
                public \Symfony\Component\Lock\LockInterface $lock;
                public function add(RecurringMessage $message): static
                {
                    return $this;
                }
                public function stateful(\Symfony\Contracts\Cache\CacheInterface $state): static
                {
                    return $this;
                }
                public function lock(\Symfony\Component\Lock\LockInterface $lock): static
                {
                    $this->lock = $lock;
                    return $this;
                }
            }
        }
        namespace {
            /** A worker looks for messages that are due; it keeps the lock if there will be more. */
            function look(\Symfony\Component\Lock\LockInterface $lock, bool $isLast = false): string
            {
                if (!$lock->acquire()) {
                    return 'waits ';
                }
                if ($isLast) {
                    $lock->release();
                } elseif (null !== $lock->getRemainingLifetime()) {
                    return 'must refresh ';
                } else {
                    // Version 6.3 refreshes for the time until the next message.
                    $lock->refresh(3600.0);
                }
                return 'works ';
            }

        PHP;

    private Server $server;
    private Application $application;

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->application = new Application([
            'LOCK_DSN' => Application::dsn($this->server),
            'URL' => $this->server->tcp(),
        ]);
    }

    /** @param list<string> $lines that the script must print */
    private function assertPrints(array $lines, string $script): void
    {
        [$output, $status] = $this->application->run($script);
        self::assertSame($lines, explode("\n", $output));
        self::assertSame(0, $status);
    }

    private function withMessenger(): void
    {
        $this->application->write('deduplication.php', self::DEDUPLICATION);
        $this->application->write('src/Deduplication.php', self::MIDDLEWARE);
        $this->application->write('src/Handler.php', self::HANDLER);
        $this->application->write('src/Now.php', '<?php namespace App; final class Now {}');
        $this->application->write('src/Later.php', '<?php namespace App; final class Later {}');
        $this->application->write('config/packages/messenger.yaml', self::MESSENGER);
    }

    public function testAMessageThatWouldTakeALockAlongIsNotSentAndTheExceptionSaysWhy(): void
    {
        $this->withMessenger();
        $this->assertPrints([
            'Symfony\Component\Lock\Exception\UnserializableKeyException',
            'the message is not sent: its DeduplicateStamp has a lock that belongs to this process and ends with it',
            '0 sent, 0 hold it',
            '1 sent',
        ], '
            require __DIR__ . "/deduplication.php";
            use Symfony\Component\Messenger\Stamp\DeduplicateStamp;
            $bus = $container->get("test.bus");
            try {
                $bus->dispatch(new App\Later(), [new DeduplicateStamp("one")]);
            } catch (Exception $e) {
                echo get_class($e), "\n", strstr($e->getMessage(), ", as ", true), "\n";
            }
            unset($e);
            $sent = $container->get("test.transport");
            $holders = Lockd\Client::connect(getenv("URL"))->inspect("one")->holders;
            echo count($sent->getSent()), " sent, $holders hold it\n";
            $bus->dispatch(new App\Later());
            echo count($sent->getSent()), " sent";
        ');
    }

    public function testAMessageThatStaysInItsProcessIsDeduplicated(): void
    {
        $this->withMessenger();
        $this->assertPrints(['1 handled, 1 held it', '0 hold it', '0 handled'], '
            require __DIR__ . "/deduplication.php";
            use Symfony\Component\Messenger\Stamp\{DeduplicateStamp, HandledStamp};
            $bus = $container->get("test.bus");
            $lockd = Lockd\Client::connect(getenv("URL"));
            $envelope = $bus->dispatch(new App\Now(), [new DeduplicateStamp("one")]);
            $handled = $envelope->all(HandledStamp::class);
            echo count($handled), " handled, ", $handled[0]->getResult(), " held it\n";
            echo $lockd->inspect("one")->holders, " hold it\n";
            $other = $lockd->acquire("one", 0.0);
            $envelope = $bus->dispatch(new App\Now(), [new DeduplicateStamp("one")]);
            echo count($envelope->all(HandledStamp::class)), " handled";
        ');
    }

    public function testAScheduleHasOneWorkerUntilThatIsGone(): void
    {
        $example = Recipe::in('docs/symfony.md', 'final class MainSchedule');
        $this->application->write('src/MainSchedule.php', "<?php\n$example");
        $message = Recipe::in('docs/symfony.md', 'final class MakeReport' . "\n");
        $this->application->write('src/Message/MakeReport.php', "<?php\n$message");
        $this->application->write('config/packages/schedule.yaml', "framework: { lock: '%env(LOCK_DSN)%' }\n"
            . 'services: { App\MainSchedule: { public: true, autowire: true } }');
        $this->application->write('scheduler.php', "<?php\n" . self::SCHEDULER . '}');
        $this->application->write('src/Kernel.php', '<?php
            namespace App;
            interface_exists(\Symfony\Component\Scheduler\ScheduleProviderInterface::class)
                || require __DIR__ . "/../scheduler.php";
            final class Kernel extends \Symfony\Component\HttpKernel\Kernel
            {
                use \Symfony\Bundle\FrameworkBundle\Kernel\MicroKernelTrait;
            }');
        $this->assertPrints(['waits works works 1 works 0'], '
            $first = Lockd\Client::connect(getenv("URL"));
            $theirs = $first->acquire("schedule/main", 0.0);
            $ours = $container->get(App\MainSchedule::class)->getSchedule()->lock;
            echo look($ours);
            // The machine of the first worker is gone.
            $first->close();
            echo look($ours), look($ours);
            $lockd = Lockd\Client::connect(getenv("URL"));
            echo $lockd->inspect("schedule/main")->holders, " ";
            echo look($ours, true), $lockd->inspect("schedule/main")->holders;
        ');
    }
}
