<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Amp\Future;
use ArrayIterator;
use Closure;
use Fiber;
use Generator;
use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Laravel\LockdLockProvider;
use Lockd\Tests\Support\Server;
use Lockd\WordPress\Locks;
use PHPUnit\Framework\TestCase;

require_once __DIR__ . '/../WordPress/stubs.php';

/**
 * Code that is called under a lock must run to its end under it; otherwise an exception says that
 * it does not.
 */
final class BodyTest extends TestCase
{
    /** How often a body has run. */
    private static int $ran = 0;

    private static ?Server $server = null;

    private static function server(): Server
    {
        return self::$server ??= new Server();
    }

    public static function tearDownAfterClass(): void
    {
        self::$server = null;
    }

    protected function setUp(): void
    {
        self::$ran = 0;
    }

    public static function generatorMethod(): Generator
    {
        self::$ran++;
        yield 1;
    }

    public function __invoke(): Generator
    {
        self::$ran++;
        yield 1;
    }

    /** @param list<mixed> $arguments */
    public function __call(string $method, array $arguments): Generator
    {
        return self::generatorMethod();
    }

    /** A promise like React's, which cannot say whether it is settled. */
    private static function promise(): object
    {
        return new class {
            public function then(callable $then): self
            {
                return $this;
            }
        };
    }

    /** A promise like those of Guzzle and HTTPlug. */
    private static function promiseThatIs(string $state): object
    {
        return new class ($state) {
            public function __construct(private readonly string $state)
            {
            }

            public function then(callable $then): self
            {
                return $this;
            }

            public function getState(): string
            {
                return $this->state;
            }
        };
    }

    private static function futureThatIsComplete(bool $isComplete): object
    {
        $future = new class ($isComplete) {
            public function __construct(private readonly bool $isComplete)
            {
            }

            public function isComplete(): bool
            {
                return $this->isComplete;
            }
        };
        // The tests do not require Amp.
        class_exists(Future::class) || class_alias($future::class, Future::class);
        return $future;
    }

    private static function suspendedFiber(): Fiber
    {
        $fiber = new Fiber(static fn () => Fiber::suspend());
        $fiber->start();
        return $fiber;
    }

    private static function endedFiber(): Fiber
    {
        $fiber = new Fiber(static fn () => null);
        $fiber->start();
        return $fiber;
    }

    /**
     * Every way to call a function under the lock `x`.
     *
     * @return array<string, Closure(Server): (Closure(callable): mixed)>
     */
    private static function ways(): array
    {
        $laravel = static fn (Server $server) => (new LockdLockProvider($server->tcp()))->lock('x');
        return [
            'streams' => static fn (Server $server) => static fn (callable $body): mixed =>
                Client::connect($server->tcp())->synchronized('x', $body),
            'FFI' => static fn (Server $server) => static fn (callable $body): mixed =>
                Client::connectByFfi($server->tcp())->synchronized('x', $body),
            'Laravel, get' => static fn (Server $server) => static fn (callable $body): mixed =>
                $laravel($server)->get($body),
            'Laravel, block' => static fn (Server $server) => static fn (callable $body): mixed =>
                $laravel($server)->block(30, $body),
            'Laravel, funnel' => static fn (Server $server) => static fn (callable $body): mixed =>
                (new LockdLockProvider($server->tcp()))->funnel('x')->limit(2)->then($body),
            'WordPress, once' => static fn (Server $server) => static fn (callable $body): mixed =>
                (new Locks($server->tcp(), static fn (): string => ''))->once('x', $body),
            'WordPress, cronOnce' => static fn (Server $server) => static function (callable $body) use ($server) {
                $GLOBALS['hooks'] = [];
                (new Locks($server->tcp(), static fn (): string => ''))->cronOnce('hook', $body);
                do_action('hook');
            },
        ];
    }

    /** @return iterable<string, array{Closure(Server): (Closure(callable): mixed), callable}> */
    public static function lazyBodies(): iterable
    {
        $bodies = [
            'a generator function' => static function (): Generator {
                self::$ran++;
                yield 1;
            },
            'a method' => [self::class, 'generatorMethod'],
            'an object' => new self(),
            'a method of __call' => [new self(), 'aMethodOfCall'],
            'a function that returns a generator' => static fn (): Generator => self::generatorMethod(),
            'a promise' => self::promise(...),
            'a pending promise' => static fn (): object => self::promiseThatIs('pending'),
            'a future' => static fn (): object => self::futureThatIsComplete(false),
            'a suspended fiber' => self::suspendedFiber(...),
            'a fiber that was not started' => static fn (): Fiber => new Fiber(self::generatorMethod(...)),
        ];
        foreach (self::ways() as $way => $make) {
            foreach ($bodies as $what => $body) {
                yield "$way: $what" => [$make, $body];
            }
        }
    }

    /**
     * @dataProvider lazyBodies
     * @param Closure(Server): (Closure(callable): mixed) $make
     */
    public function testABodyThatWouldRunLaterIsRefused(Closure $make, callable $body): void
    {
        try {
            $make(self::server())($body);
            self::fail('the unfinished body was accepted');
        } catch (InvalidArgumentException $e) {
            self::assertMatchesRegularExpression('/with yield in it|is not done/', $e->getMessage());
        }
        self::assertSame(0, self::$ran);
        self::assertSame([], [...Client::connect(self::server()->tcp())->list()], 'the lock is still held');
    }

    /** @return iterable<string, array{Closure(Server): (Closure(callable): mixed), callable}> */
    public static function honestBodies(): iterable
    {
        $results = [
            'nothing' => null,
            'text' => 'then',
            'a closure' => static fn () => self::generatorMethod(),
            'an iterator' => new ArrayIterator([1]),
            'an ended fiber' => self::endedFiber(),
            'a fulfilled promise' => self::promiseThatIs('fulfilled'),
            'a complete future' => self::futureThatIsComplete(true),
            'an object of __call' => new self(),
        ];
        foreach (self::ways() as $way => $make) {
            foreach ($results as $what => $result) {
                yield "$way: $what" => [$make, static function () use ($result): mixed {
                    self::$ran++;
                    return $result;
                }];
            }
            yield "$way: a function of PHP" => [$make, static fn (): int => self::$ran += strlen('x')];
            yield "$way: a generator that is read under the lock" => [$make, static function (): void {
                iterator_to_array(self::generatorMethod());
            }];
        }
    }

    /**
     * @dataProvider honestBodies
     * @param Closure(Server): (Closure(callable): mixed) $make
     */
    public function testABodyThatIsFinishedIsAccepted(Closure $make, callable $body): void
    {
        $make(self::server())($body);
        self::assertSame(1, self::$ran);
    }
}
