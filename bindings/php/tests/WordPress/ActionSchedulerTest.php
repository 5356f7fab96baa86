<?php

declare(strict_types=1);

namespace Lockd\Tests\WordPress;

use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Tests\Support\Recipe;
use Lockd\Tests\Support\Server;
use Lockd\WordPress\Locks;
use PHPUnit\Framework\TestCase;

/** Queues of Action Scheduler: of several requests, each with hooks of its own. */
final class ActionSchedulerTest extends TestCase
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
    }

    protected function tearDown(): void
    {
        ini_set('error_log', $this->oldLog);
        $GLOBALS['hooks'] = [];
    }

    /** The hooks of a new request, which limits the queues. */
    private function request(int $queues): array
    {
        $GLOBALS['hooks'] = [];
        (new Locks($this->server->tcp(), static fn (): string => 'shop/wp_/'))->limitActionScheduler($queues);
        return $GLOBALS['hooks'];
    }

    /** Does what Action Scheduler does in the request with these hooks. */
    private function in(array $hooks, callable $do): mixed
    {
        [$mine, $GLOBALS['hooks']] = [$GLOBALS['hooks'], $hooks];
        try {
            return $do();
        } finally {
            $GLOBALS['hooks'] = $mine;
        }
    }

    /**
     * Runs a queue as Action Scheduler does. There are always actions.
     *
     * @param int $claims the claims in the database
     * @param callable(int): void $action is given the number of the action
     * @return int how many actions it has run
     */
    private function runQueue(array $hooks, int $claims, callable $action): int
    {
        return $this->in($hooks, function () use ($claims, $action): int {
            $ran = 0;
            do_action('action_scheduler_before_process_queue');
            if ($claims < apply_filters('action_scheduler_queue_runner_concurrent_batches', 1)) {
                do {
                    $action(++$ran);
                    $stop = 'action_scheduler_maximum_execution_time_likely_to_be_exceeded';
                } while (!apply_filters($stop, $ran === 3));
            }
            do_action('action_scheduler_after_process_queue');
            return $ran;
        });
    }

    public function testAsManyQueuesRunAsMayWhateverTheDatabaseSays(): void
    {
        $requests = [$this->request(2), $this->request(2), $this->request(2)];
        $inner = [];
        $outer = $this->runQueue($requests[0], 0, function (int $action) use ($requests, &$inner): void {
            // The claims of a queue that has died are still counted.
            $inner[] = $this->runQueue($requests[1], 7, function () use ($requests, &$inner): void {
                $inner[] = $this->runQueue($requests[2], 0, fn () => self::fail('three queues at once'));
            });
        });
        self::assertSame([3, [0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 3]], [$outer, $inner]);
        self::assertSame(3, $this->runQueue($requests[2], 7, static fn () => null));
    }

    public function testAQueueThatHasLostItsSlotEndsAfterTheAction(): void
    {
        $hooks = $this->request(1);
        self::assertSame(1, $this->runQueue($hooks, 0, fn () => $this->server->restart()));
        self::assertSame(3, $this->runQueue($this->request(1), 0, static fn () => null));
    }

    public function testWithoutAServerNoQueueRuns(): void
    {
        $hooks = $this->request(1);
        $this->server->kill();
        self::assertSame(0, $this->runQueue($hooks, 0, fn () => self::fail('it has no slot')));
    }

    /** `wp action-scheduler run` asks before each queue, and runs several. */
    public function testTheCommandKeepsItsSlotFromQueueToQueue(): void
    {
        $script = <<<'PHP'
            define('WP_CLI', true);
            require 'STUBS';
            $locks = new Lockd\WordPress\Locks('URL', fn (): string => 'shop/wp_/');
            $locks->limitActionScheduler(1);
            $observer = Lockd\Client::connect('URL');
            $look = function () use ($observer): void {
                echo $observer->inspect('shop/wp_/action-scheduler')->holders, ' ';
            };
            WP_CLI::invoke('action-scheduler run', [], function () use ($look): void {
                foreach ([1, 2] as $queue) {
                    $allowed = apply_filters('action_scheduler_queue_runner_concurrent_batches', 1);
                    echo $allowed > 1 ? 'runs ' : 'waits ';
                    do_action('action_scheduler_before_process_queue');
                    $look();
                    do_action('action_scheduler_after_process_queue');
                    $look();
                }
            });
            $look();
            PHP;
        $script = strtr($script, ['STUBS' => __DIR__ . '/stubs.php', 'URL' => $this->server->tcp()]);
        self::assertSame(['runs 1 1 runs 1 1 0 ', 0], Recipe::run($script, $this->server));

        $holder = Client::connect($this->server->tcp())->acquire('shop/wp_/action-scheduler', atMost: 1);
        self::assertNotNull($holder);
        self::assertSame(['waits 1 1 waits 1 1 1 ', 0], Recipe::run($script, $this->server));
    }

    public function testBetweenQueuesActionSchedulerIsToldTheLimit(): void
    {
        $ask = static fn (): mixed => apply_filters('action_scheduler_queue_runner_concurrent_batches', 1);
        self::assertSame(4, $this->in($this->request(4), $ask));
        $GLOBALS['hooks'] = [];
        $locks = new Locks($this->server->tcp(), static fn (): string => '');
        $locks->limitActionScheduler(4);
        $locks->limitActionScheduler(5);
        self::assertSame(5, $ask());
        self::assertCount(1, array_merge(...$GLOBALS['hooks']['action_scheduler_before_process_queue']));
    }

    public function testALimitIsAtLeastOne(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->request(0);
    }
}
