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
        yield 'at most four' => ['atMost: 4)', 'tcp://127.0.0.1:20934', '', 'called'];
        $client = '$lockd = Lockd\Client::connect("tcp://127.0.0.1:20934", "painter");';
        yield 'a look at a free lock' => ['->inspect(', 'tcp://127.0.0.1:20934', $client, "gpu is free\n"];
        $looks = [
            'atMost: 4' => '1 of 4 slots are taken, 3 are free, 0 wait',
            'shared: false' => '1 of 1 slots are taken, 0 are free, 0 wait',
            'shared: true' => '1 share gpu, without a limit',
        ];
        foreach ($looks as $mode => $seen) {
            $before = "$client\n\$mine = \$lockd->acquire('gpu', 0.0, $mode);";
            $seen = "$seen\ngpu is held by painter\n";
            yield "a look at a lock with $mode" => ['->inspect(', 'tcp://127.0.0.1:20934', $before, $seen];
        }
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
        $server = new Server();
        $url = strstr($address, '://', true) . strstr($server->tcp(), '://');
        $example = str_replace($address, $url, "$before\n" . self::example($call), $count);
        self::assertSame(1, $count);
        self::assertSame([$output, 0], self::execute($example, $server));
    }

    public function testTheExampleThatWaitsForTheServerSaysSoOnce(): void
    {
        $nowhere = ['tcp://127.0.0.1:20934' => 'tcp://127.0.0.1:1', '3600.0' => '2.0'];
        [$output, $status] = self::execute(strtr(self::example('connectAndAcquire('), $nowhere), new Server());
        // In two seconds there are several attempts.
        self::assertSame(1, substr_count($output, 'still trying'), $output);
        self::assertStringContainsString('ConnectException', $output);
        self::assertNotSame(0, $status);
    }

    /** The first example of the README with this call. */
    private static function example(string $call): string
    {
        $readme = (string) file_get_contents(__DIR__ . '/../../README.md');
        $pattern = '/^```php\n([^`]*' . preg_quote($call, '/') . '[^`]*)^```$/m';
        self::assertSame(1, preg_match($pattern, $readme, $parts));
        return $parts[1];
    }

    /** @return array{string, int} what the example prints, and its exit status */
    private static function execute(string $example, Server $server): array
    {
        $example = str_replace('// At most four processes are here.', 'theWork();', $example);
        $example = preg_replace('/\b(writeTheReport|renderTheImage)\(/', 'theWork(', $example);
        $script = $server->directory() . '/example.php';
        file_put_contents($script, "<?php\n$example\nfunction theWork(): void\n{\n    echo 'called';\n}\n");
        $command = [PHP_BINARY, '-d', 'auto_prepend_file=' . dirname(__DIR__) . '/bootstrap.php', $script];
        $process = proc_open($command, [1 => ['pipe', 'w'], 2 => ['pipe', 'w']], $pipes);
        self::assertIsResource($process);
        $output = stream_get_contents($pipes[1]) . stream_get_contents($pipes[2]);
        return [$output, proc_close($process)];
    }
}
