<?php // phpcs:disable Generic.PHP.RequireStrictTypes -- PHP must convert arguments here.

namespace Lockd\Tests\Support;

use Lockd\Client;
use Lockd\Lock;

/**
 * Calls that mean "at most so many" but give the number as `$shared`, in a file without strict
 * types, as most programs are: PHP converts the arguments to the types of the parameters.
 */
final class LooseCalls
{
    /** @return list<callable(): mixed> */
    public static function withNumberAsShared(Client $client, Lock $lock, int|float|string $number): array
    {
        $body = static fn () => throw new \LogicException('the body ran');
        $url = 'tcp://127.0.0.1:1';
        return [
            static fn () => $client->acquire('loose', 0.0, $number),
            static fn () => $client->acquire('loose', shared: $number),
            static fn () => $client->acquire('loose', 0.0, $number, 4),
            static fn () => call_user_func([$client, 'acquire'], 'loose', 0.0, $number),
            static fn () => $client->synchronized('loose', $body, 0.0, $number),
            static fn () => Client::connectAndAcquire($url, 'loose', 0.0, $number),
            static fn () => Client::connectAndAcquireByFfi($url, 'loose', 0.0, $number),
            static fn () => $lock->convert($number),
        ];
    }
}
