<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** The example of the README that waits for the server, with the address of a server of the test. */
final class ReadmeTest extends TestCase
{
    public function testTheExampleThatWaitsForTheServerRuns(): void
    {
        $readme = (string) file_get_contents(__DIR__ . '/../../README.md');
        preg_match('/^```php\n([^`]*connectAndAcquire\([^`]*)^```$/m', $readme, $parts);
        $server = new Server();
        $example = str_replace('tcp://127.0.0.1:20934', $server->tcp(), $parts[1], $count);
        self::assertSame(1, $count);
        $script = $server->directory() . '/example.php';
        file_put_contents($script, "<?php\n$example\nfunction writeTheReport(): void\n{\n    echo 'written';\n}\n");
        $command = [PHP_BINARY, '-d', 'auto_prepend_file=' . dirname(__DIR__, 2) . '/autoload.php', $script];
        $process = proc_open($command, [1 => ['pipe', 'w'], 2 => ['pipe', 'w']], $pipes);
        self::assertIsResource($process);
        self::assertSame('written', stream_get_contents($pipes[1]) . stream_get_contents($pipes[2]));
        self::assertSame(0, proc_close($process));
    }
}
