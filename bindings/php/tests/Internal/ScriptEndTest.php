<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Lockd\Client;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/**
 * A script with several connections whose destructors PHP does not call. Whatever PHP itself has
 * closed of them by then, they must end without any output. endings.php shows when their locks are
 * free.
 */
final class ScriptEndTest extends TestCase
{
    private const SCRIPT = <<<'PHP'
        require $argv[1];
        [, , $how, $connect, $url] = $argv;
        $clients = [Lockd\Client::$connect($url), Lockd\Client::$connect($url)];
        foreach ($clients as $index => $client) {
            $locks[] = $client->acquire("script-end/$index", 0.0) ?? exit('busy');
        }
        $last = new class ($how, $connect, $url) {
            public function __construct(private string $how, private string $connect, private string $url)
            {
            }

            public function __destruct()
            {
                if ($this->how === 'after one more connection') {
                    $GLOBALS['one more'] = Lockd\Client::{$this->connect}($this->url);
                }
                exit('ended');
            }
        };
        PHP;

    /** @return iterable<string, array{string, string}> */
    public static function ways(): iterable
    {
        foreach (['connect', 'connectByFfi'] as $connect) {
            foreach (['at once', 'after one more connection'] as $how) {
                yield "$connect, $how" => [$connect, $how];
            }
        }
    }

    /** @dataProvider ways */
    public function testAScriptEndsWithoutOutput(string $connect, string $how): void
    {
        $server = new Server();
        $command = [PHP_BINARY, '-d', 'display_errors=1', '-d', 'error_reporting=-1', '-r', self::SCRIPT, '--'];
        $arguments = [__DIR__ . '/../../autoload.php', $how, $connect, $server->tcp()];
        $process = proc_open([...$command, ...$arguments], [['file', '/dev/null', 'r'], ['pipe', 'w']], $pipes);
        self::assertIsResource($process);
        self::assertSame('ended', stream_get_contents($pipes[1]));
        self::assertSame(0, proc_close($process));

        $client = Client::connect($server->tcp());
        foreach (['script-end/0', 'script-end/1'] as $name) {
            // The script has not released its locks, so its work may be half done.
            self::assertTrue($client->acquire($name, 5.0)?->orphaned());
        }
    }
}
