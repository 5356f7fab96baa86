<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Closure;
use Illuminate\Contracts\Cache\LockTimeoutException;
use Illuminate\Contracts\Redis\LimiterTimeoutException;
use Lockd\Client;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Session\LockingSessionHandler;
use Lockd\Symfony\LockdSemaphoreStore;
use Lockd\Symfony\LockdStore;
use Lockd\Tests\Session\FileHandler;
use Lockd\Tests\Support\Server;
use Lockd\WordPress\Locks;
use PHPUnit\Framework\TestCase;
use RuntimeException;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\Key;
use Symfony\Component\Semaphore\Exception\SemaphoreAcquiringException;
use Symfony\Component\Semaphore\Key as SemaphoreKey;
use Throwable;

require_once __DIR__ . '/../WordPress/stubs.php';

/**
 * One client, or one adapter, that asks for a lock which it holds. The second request is refused at
 * once, in the adapter's own way of saying that a lock is busy. It never waits for itself, and it
 * neither takes nor frees what the first request has got.
 */
final class TwiceTest extends TestCase
{
    private const NAME = 'twice';

    /** For so long a second request would wait for its own client, in seconds. */
    private const LONG = 3600.0;

    /** How long a request may take that does not, in seconds, on a busy machine. */
    private const PATIENCE = 30;

    private Server $server;
    private Client $watcher;

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->watcher = Client::connect($this->server->unix());
        pcntl_signal(SIGALRM, static fn () => throw new RuntimeException('it waits for itself'));
        pcntl_async_signals(true);
        pcntl_alarm(self::PATIENCE);
    }

    protected function tearDown(): void
    {
        pcntl_alarm(0);
        pcntl_async_signals(false);
        pcntl_signal(SIGALRM, SIG_DFL);
    }

    /**
     * Each row makes, with a client, the first request, the second, how a program releases what it
     * asked for second, and how it releases the first; after them stands what means busy: an
     * exception, or a result.
     *
     * @return iterable<string, array{Closure(Client): list<Closure(): mixed>, mixed}>
     */
    public static function requests(): iterable
    {
        $modes = ['exclusive' => [], 'shared' => ['shared' => true], 'limited' => ['atMost' => 2]];
        foreach ($modes as $first => $ours) {
            foreach ($modes as $second => $theirs) {
                yield "client: $first, then $second" => [static fn (Client $client): array => [
                    function () use ($client, $ours, &$lock): void {
                        $lock = $client->acquire(self::NAME, 0.0, ...$ours);
                    },
                    fn () => $client->acquire(self::NAME, self::LONG, ...$theirs),
                    fn () => null,
                    function () use (&$lock): void {
                        $lock->release();
                    },
                ], AlreadyHeldException::class];
            }
        }
        yield from self::requestsOfSymfony();
        yield from self::requestsOfLaravel();
        yield 'WordPress' => [static fn (Client $client): array => [
            function () use ($client, &$locks, &$first): void {
                $locks = new Locks($client, static fn (): string => '');
                $first = $locks->acquire(self::NAME);
            },
            function () use (&$locks, &$second): mixed {
                self::assertFalse($locks->once(self::NAME, fn () => self::fail('it ran'), self::LONG));
                return $second = $locks->acquire(self::NAME, self::LONG);
            },
            function () use (&$second): void {
                $second = null;
            },
            function () use (&$first): void {
                $first = null;
            },
        ], null];
        yield 'PHP sessions' => [static function (Client $client): array {
            $files = new FileHandler(sys_get_temp_dir());
            $handlers = [new LockingSessionHandler($files, $client), new LockingSessionHandler($files, $client)];
            return [
                fn () => $handlers[0]->read('none'),
                fn () => @$handlers[1]->read('none'),
                fn () => $handlers[1]->close(),
                fn () => $handlers[0]->close(),
                'session/' . hash('sha256', 'none'),
            ];
        }, false];
    }

    /** @return iterable<string, array{Closure(Client): list<Closure(): mixed>, mixed}> */
    private static function requestsOfSymfony(): iterable
    {
        foreach ([['save', 'waitAndSave'], ['save', 'waitAndSaveRead'], ['saveRead', 'waitAndSave']] as [$one, $two]) {
            yield "Symfony, lock: $one, then $two" => [static function (Client $client) use ($one, $two): array {
                [$store, $first, $second] = [new LockdStore($client), new Key(self::NAME), new Key(self::NAME)];
                return [
                    fn () => $store->$one($first),
                    fn () => $store->$two($second),
                    fn () => $store->delete($second),
                    fn () => $store->delete($first),
                ];
            }, LockConflictedException::class];
        }
        yield 'Symfony, semaphore' => [static function (Client $client): array {
            $store = new LockdSemaphoreStore($client);
            [$first, $second] = [new SemaphoreKey(self::NAME, 2), new SemaphoreKey(self::NAME, 2)];
            return [
                fn () => $store->save($first, self::LONG),
                fn () => $store->save($second, self::LONG),
                fn () => $store->delete($second),
                fn () => $store->delete($first),
            ];
        }, SemaphoreAcquiringException::class];
    }

    /** @return iterable<string, array{Closure(Client): list<Closure(): mixed>, mixed}> */
    private static function requestsOfLaravel(): iterable
    {
        $ways = [
            'get' => [fn ($lock) => $lock->get(), false],
            'get with a callback' => [fn ($lock) => $lock->get(fn () => self::fail('it ran')), false],
            'block' => [fn ($lock) => $lock->block(self::LONG), LockTimeoutException::class],
            'block with a callback' => [
                fn ($lock) => $lock->block(self::LONG, fn () => self::fail('it ran')),
                LockTimeoutException::class,
            ],
        ];
        foreach ($ways as $way => [$ask, $busy]) {
            yield "Laravel, lock: $way" => [static function (Client $client) use ($ask): array {
                $locks = new LockdLockProvider($client);
                [$first, $second] = [$locks->lock(self::NAME), $locks->lock(self::NAME)];
                return [
                    fn () => $first->get(),
                    fn () => $ask($second),
                    fn () => self::assertFalse($second->release()),
                    fn () => $first->release(),
                ];
            }, $busy];
        }
        yield 'Laravel, funnel' => [static function (Client $client): array {
            $locks = new LockdLockProvider($client);
            $first = $locks->lock(self::NAME);
            return [
                fn () => $first->get(),
                fn () => $locks->funnel(self::NAME)->limit(2)->block(self::LONG)->then(fn () => self::fail('it ran')),
                fn () => null,
                fn () => $first->release(),
            ];
        }, LimiterTimeoutException::class];
    }

    /**
     * @dataProvider requests
     * @param Closure(Client): array<mixed> $requests
     */
    public function testTheSecondRequestIsRefusedAndTheFirstIsKept(Closure $requests, mixed $busy): void
    {
        [$first, $second, $doneWithSecond, $doneWithFirst, $name] = $requests(Client::connect($this->server->tcp()))
            + [4 => self::NAME];
        $first();
        $token = $this->tokens($name);
        self::assertCount(1, $token);
        try {
            $result = $second();
        } catch (Throwable $e) {
            $result = $e::class;
        }
        self::assertSame($busy, $result, isset($e) ? $e->getMessage() : '');
        self::assertSame($token, $this->tokens($name));
        $doneWithSecond();
        self::assertSame($token, $this->tokens($name));
        $doneWithFirst();
        self::assertSame([], $this->tokens($name));
    }

    public function testReadersOfOneSymfonyStoreShareTheLockUntilTheLastIsDone(): void
    {
        $store = new LockdStore(Client::connect($this->server->tcp()));
        $keys = [new Key(self::NAME), new Key(self::NAME)];
        $store->saveRead($keys[0]);
        $store->waitAndSaveRead($keys[1]);
        $token = $this->tokens(self::NAME);
        $store->delete($keys[1]);
        self::assertSame($token, $this->tokens(self::NAME));
        self::assertTrue($store->exists($keys[0]));
        $store->delete($keys[0]);
        self::assertSame([], $this->tokens(self::NAME));
    }

    /** Adapters with an address open a client for each slot, which must not wait for each other. */
    public function testAFunnelDoesNotWaitForTheSlotsOfItsOwnProcess(): void
    {
        $locks = new LockdLockProvider($this->server->tcp());
        $funnel = fn (callable $body, int $limit) =>
            $locks->funnel(self::NAME)->limit($limit)->block(self::LONG)->then($body, fn () => 'busy');
        $lock = $locks->lock(self::NAME);
        $lock->get();
        self::assertSame('busy', $funnel(fn () => 'ran', 5));
        $lock->release();
        self::assertSame('busy', $funnel(fn () => $funnel(fn () => 'ran', 1), 1));
        self::assertSame('busy', $funnel(fn () => $funnel(fn () => 'ran', 3), 1));
        self::assertSame('busy', $funnel(fn () => $funnel(fn () => $funnel(fn () => 'ran', 2), 2), 2));
        self::assertSame('ran', $funnel(fn () => $funnel(fn () => $funnel(fn () => 'ran', 3), 3), 3));
        self::assertSame([], $this->tokens(self::NAME));
    }

    /** @return list<?int> the tokens of those who hold the lock; nobody waits for it */
    private function tokens(string $name): array
    {
        $tokens = [];
        foreach ($this->watcher->list($name) as $lock) {
            self::assertSame([], $lock->waiters);
            foreach ($lock->holders as $holder) {
                $tokens[] = $holder->token;
            }
        }
        return $tokens;
    }
}
