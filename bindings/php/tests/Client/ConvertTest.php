<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Closure;
use Lockd\Client;
use Lockd\Exception\NotHeldException;
use Lockd\Lock;
use Lockd\Tests\Support\Meanwhile;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use ReflectionMethod;
use ReflectionParameter;

/** The short forms of conversions, and what calls do that are given no time limit. */
final class ConvertTest extends TestCase
{
    /** @return iterable<string, array{Closure(string): Client}> */
    public static function transports(): iterable
    {
        yield 'streams' => [Client::connect(...)];
        yield 'FFI' => [Client::connectByFfi(...)];
        yield 'embedded' => [static fn (): Client => Client::embedded()];
    }

    /**
     * @dataProvider transports
     * @param Closure(string): Client $client
     */
    public function testALockIsSharedAndMadeExclusiveAgain(Closure $client): void
    {
        $server = new Server();
        [$a, $b] = [$client($server->tcp()), $client($server->tcp())];
        $lock = $a->acquire('shared by');
        self::assertNotNull($lock);
        foreach ([null, 3] as $limit) {
            $limit === null || self::assertTrue($lock->convert(atMost: $limit));
            $lock->share();
            self::assertSame([null, true], [$lock->limit(), $lock->isHeld()]);
            // Twice is as good as once.
            $lock->share();
            $other = $b->acquire('shared by', 0.0, true);
            self::assertNotNull($other);
            $token = $lock->token();
            self::assertFalse($lock->makeExclusive());
            self::assertSame([null, $token], [$lock->limit(), $lock->token()]);
            $meanwhile = Meanwhile::does(fn () => $other->release());
            self::assertTrue($lock->makeExclusive(30.0));
            unset($meanwhile);
            self::assertGreaterThan($token, $lock->token());
            $token = $lock->token();
            self::assertTrue($lock->makeExclusive());
            self::assertSame([1, $token, true], [$lock->limit(), $lock->token(), $lock->isHeld()]);
            self::assertNull($b->acquire('shared by', 0.0, true));
        }
        $lock->release();
        foreach ([fn () => $lock->share(), fn () => $lock->makeExclusive()] as $call) {
            try {
                $call();
                self::fail('a lock was converted that is not held');
            } catch (NotHeldException $e) {
                self::assertSame('"shared by" has been released', $e->getMessage());
            }
        }
    }

    /**
     * @dataProvider transports
     * @param Closure(string): Client $client
     */
    public function testWithoutATimeLimitNeitherAcquireNorConvertWaits(Closure $client): void
    {
        $server = new Server();
        [$a, $b] = [$client($server->tcp()), $client($server->tcp())];
        $locks = [$a->acquire('limit', shared: true), $b->acquire('limit', shared: true)];
        // If these waited, they would wait for ever.
        self::assertFalse($locks[0]?->convert());
        self::assertFalse($locks[0]->convert(atMost: 1));
        $other = $b->acquire('limit/2');
        self::assertNull($a->acquire('limit/2'));
        self::assertTrue($other?->isHeld());
    }

    public function testTheTimeLimitsThatCallsHaveOfTheirOwn(): void
    {
        $methods = [
            Client::class => ['acquire', 'synchronized', 'connectAndAcquire', 'connectAndAcquireByFfi'],
            Lock::class => ['convert', 'makeExclusive'],
        ];
        $defaults = [];
        foreach ($methods as $class => $methods) {
            foreach ($methods as $method) {
                $parameters = (new ReflectionMethod($class, $method))->getParameters();
                $isLimit = static fn (ReflectionParameter $parameter): bool => $parameter->getName() === 'timeout';
                [$limit] = array_values(array_filter($parameters, $isLimit));
                $defaults[$method] = $limit->getDefaultValue();
            }
        }
        self::assertSame(['acquire' => 0.0, 'synchronized' => 10.0, 'connectAndAcquire' => null,
            'connectAndAcquireByFfi' => null, 'convert' => 0.0, 'makeExclusive' => 0.0], $defaults);
    }
}
