<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Examples of the README, with the address of a server of the test. */
final class ReadmeTest extends TestCase
{
    /** @return iterable<string, array{string, string, string, string}> */
    public static function examples(): iterable
    {
        yield 'waiting for the server' => ['connectAndAcquire(', 'tcp://127.0.0.1:20934', '', 'called'];
        $seen = "1 of 4 slots are taken, 3 are free\ncalled";
        yield 'at most four' => ['atMost: 4)', 'tcp://127.0.0.1:20934', '', $seen];
        yield 'a semaphore of Symfony' => ['LockdSemaphoreStore(', 'lockd://10.0.0.1:20934', '', 'called'];
        $provider = '$locks = new Lockd\Laravel\LockdLockProvider("tcp://10.0.0.1:20934");';
        yield 'a funnel of Laravel' => ['->funnel(', 'tcp://10.0.0.1:20934', $provider, 'called'];
    }

    /**
     * @dataProvider examples
     * @param string $call a call in the example
     * @param string $before code that the example takes as given
     */
    public function testTheExampleRuns(string $call, string $address, string $before, string $output): void
    {
        $readme = (string) file_get_contents(__DIR__ . '/../../README.md');
        $pattern = '/^```php\n([^`]*' . preg_quote($call, '/') . '[^`]*)^```$/m';
        self::assertSame(1, preg_match($pattern, $readme, $parts));
        $server = new Server();
        $url = strstr($address, '://', true) . strstr($server->tcp(), '://');
        $example = str_replace($address, $url, "$before\n$parts[1]", $count);
        self::assertSame(1, $count);
        $example = str_replace('// At most four processes are here.', 'theWork();', $example);
        $example = preg_replace('/\b(writeTheReport|renderTheImage)\(/', 'theWork(', $example);
        $script = $server->directory() . '/example.php';
        file_put_contents($script, "<?php\n$example\nfunction theWork(): void\n{\n    echo 'called';\n}\n");
        $command = [PHP_BINARY, '-d', 'auto_prepend_file=' . dirname(__DIR__) . '/bootstrap.php', $script];
        $process = proc_open($command, [1 => ['pipe', 'w'], 2 => ['pipe', 'w']], $pipes);
        self::assertIsResource($process);
        self::assertSame($output, stream_get_contents($pipes[1]) . stream_get_contents($pipes[2]));
        self::assertSame(0, proc_close($process));
    }
}
