<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Lockd\Tests\Support\Recipe;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Examples of docs/laravel.md, with the address of a server of the test. */
final class DocumentTest extends TestCase
{
    /** @return iterable<int, array{string, string, string, string}> */
    public static function examples(): iterable
    {
        $provider = '$locks = new Lockd\Laravel\LockdLockProvider("tcp://10.0.0.1:20934");';
        yield ['->funnel(', 'tcp://10.0.0.1:20934', $provider, 'called'];
    }

    /**
     * @dataProvider examples
     * @param string $call a call in the example
     * @param string $before code that the example takes as given
     */
    public function testTheExampleRuns(string $call, string $address, string $before, string $output): void
    {
        $server = new Server();
        $url = strstr($address, '://', true) . strstr($server->tcp(), '://');
        $example = "$before\n" . Recipe::in('docs/laravel.md', $call);
        $example = str_replace($address, $url, $example);
        self::assertSame([$output, 0], Recipe::run($example, $server));
    }
}
