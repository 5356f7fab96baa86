<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Which code is warned that it does not keep its lock, where assertions are on. */
final class UnkeptTest extends TestCase
{
    private static ?Server $server = null;

    public static function setUpBeforeClass(): void
    {
        self::$server = new Server();
    }

    public static function tearDownAfterClass(): void
    {
        self::$server = null;
    }

    /** @return iterable<string, array{string}> code that gets a lock and loses it at once */
    public static function dropped(): iterable
    {
        $codes = [
            'if ($client->acquire("x")) { work(); }',
            'if ($client->acquire("x")): work(); endif;',
            'if (($client->acquire("x"))) { work(); }',
            'if (!$client->acquire("x")) return; work();',
            'if (!($client->acquire("x"))) return; work();',
            'if ($client->acquire("x") === null) { return; } work();',
            'if (null !== $client->acquire("x")) { work(); }',
            'if ($client->acquire("x") instanceof \Lockd\Lock) { work(); }',
            'if (true && $client->acquire("x")) { work(); }',
            'if ($client->acquire("x") && true) { work(); }',
            'if (false) { work(); } elseif ($client->acquire("x")) { work(); }',
            'if (empty($client->acquire("x"))) { return; } work();',
            'if ($client->acquire("x") and true) { work(); }',
            '$has = $client->acquire("x") !== null; work();',
            '$has = (bool) $client->acquire("x"); work();',
            '$has = !$client->acquire("x"); work();',
            '$has = $client->acquire("x") ? 1 : 2; work();',
            '$has = true && $client->acquire("x"); work();',
            'true and $client->acquire("x"); work();',
            '$client->acquire("x"); work();',
            '@$client->acquire("x"); work();',
            '/* a comment */ $client->acquire("x") /* here */ ; work();',
            'if (true) $client->acquire("x"); work();',
            '$client->acquire("x") or exit("busy"); work();',
            '$client->acquire("x") || exit("busy"); work();',
            '$client->acquire("x") ?? throw new \Exception("busy"); work();',
            '$client->acquire("x") ?: throw new \Exception("busy"); work();',
            'while ($client->acquire("x")) { work(); break; }',
            'while (!$client->acquire("x")) { work(); break; }',
            '$more = 1; do { work(); } while ($more-- > 0 && $client->acquire("x"));',
            'return (bool) $client->acquire("x");',
            'return $client->acquire("x") !== null;',
            "if (\n\$client\n->acquire(\nname: 'x',\ntimeout: 1.0,\n)\n) { work(); }",
            '$box = new \stdClass(); $box->of = ["a" => $client]; if ($box->of["a"]->acquire("x")) { work(); }',
            '$get = fn () => $client; if ($get()->acquire("x")) { work(); }',
            'if (\Lockd\Client::connectAndAcquire($url, "x")) { work(); }',
            'if ((\Lockd\Client::connect($url))->acquire("x")) { work(); }',
            'if (\Lockd\Client::connect($url)->acquire("x")) { work(); }',
            'if (tryIt($client)) { work(); }',
            'if (!\App\tryItAgain($client)) { return; } work();',
            '(new Locks($client))->of("x"); work();',
        ];
        foreach ($codes as $code) {
            yield $code => [$code];
        }
    }

    /** @return iterable<string, array{string}> code that keeps its lock, or may keep it */
    public static function kept(): iterable
    {
        $codes = [
            '$lock = $client->acquire("x"); work();',
            'if ($lock = $client->acquire("x")) { work(); }',
            'if (($lock = $client->acquire("x")) && true) { work(); }',
            'if (null !== $lock = $client->acquire("x")) { work(); }',
            '$lock = $client->acquire("x") or exit("busy"); work();',
            '$lock = $client->acquire("x") ?? throw new \Exception("busy"); work();',
            '$lock = $client->acquire("x") ?: null; work();',
            '$lock = true ? $client->acquire("x") : null; work();',
            '$lock = null; $lock ??= $client->acquire("x"); work();',
            '$locks[] = $client->acquire("x"); work();',
            '$locks = [$client->acquire("x"), $client->acquire("y")]; work();',
            '$locks = array_map(fn ($name) => $client->acquire($name), ["x", "y"]); work();',
            '$locks = array_map($client->acquire(...), ["x", "y"]); work();',
            '$locks = array_map([$client, "acquire"], ["x", "y"]); work();',
            '$lock = call_user_func([$client, "acquire"], "x"); work();',
            '$get = fn () => $client->acquire("x"); if ($lock = $get()) { work(); }',
            '$get = function () use ($client) { return $client->acquire("x"); }; if ($lock = $get()) { work(); }',
            '(function () use ($client) { $lock = $client->acquire("x"); work(); })();',
            '$lock = $client->acquire("x"); work(); unset($lock);',
            '$lock = $client->acquire("x"); work(); $lock = null;',
            'for ($i = 0; $i < 2; $i++) { $lock = $client->acquire("x$i"); } work();',
            '$i = 0; while ($i++ < 2 && $lock = $client->acquire("x$i")) { work(); }',
            '(function ($lock) { work(); })($client->acquire("x"));',
            '(new Job($client->acquire("x")))->run();',
            'work($client->acquire("x"));',
            '$lock = tryIt($client); work();',
            'if ($lock = tryItAgain($client)) { work(); }',
            'if (worksUnderIt($client)) { work(); }',
            '$lock = (new Locks($client))->of("x"); work();',
            'foreach (held($client) as $lock) { work(); }',
            '$lock = match (true) { default => $client->acquire("x") }; work();',
            '$lock = (match ($client) { default => $client })->acquire("x"); work();',
            '$lock = (clone new \ArrayObject([$client]))[0]->acquire("x"); work();',
            'static $lock; $lock = $client->acquire("x"); work();',
            '$client->acquire("x")->release();',
            '$client->acquire("x")?->release();',
            'if ($client->acquire("x")?->release()) { work(); }',
            '$client->synchronized("x", fn () => work());',
            '$lock = \Lockd\Client::connect($url)->acquire("x"); if ($client->acquire("x")) { return; } work();',
            '$lock = $client->acquire("x"); if ($client->acquire("y")) { work(); }',
            'eval(\'$lock = $client->acquire("x"); work();\');',
            'eval(\'if ($client->acquire("x")) { work(); }\');',
            '$lock = $client->acquire("x"); throw new \RuntimeException("with a lock held");',
            '$GLOBALS["lock"] = $client->acquire("x"); exit("worked");',
        ];
        foreach ($codes as $code) {
            yield $code => [$code];
        }
    }

    /** @dataProvider dropped */
    public function testALockThatIsNotKeptIsReported(string $code): void
    {
        $output = self::outputOf($code, '1');
        self::assertMatchesRegularExpression('/^warned: lockd: "x" is acquired in \S+code\.php:\d+, but /m', $output);
    }

    public function testWithoutAssertionsNothingIsReported(): void
    {
        self::assertSame("worked\n", self::outputOf('if ($client->acquire("x")) { work(); }', '0'));
    }

    /** @dataProvider kept */
    public function testALockThatIsKeptIsNotReported(string $code): void
    {
        $output = self::outputOf($code, '1');
        self::assertStringContainsString('worked', $output . (str_contains($code, 'release()') ? 'worked' : ''));
        self::assertStringNotContainsString('warned', $output);
    }

    public function testAPlaceIsReportedOnce(): void
    {
        $output = self::outputOf('foreach ([1, 2, 3] as $i) { if ($client->acquire("x")) { work(); } }', '1');
        self::assertSame([1, 3], [substr_count($output, 'warned'), substr_count($output, 'worked')]);
    }

    public function testAnErrorHandlerThatThrowsLeavesNoLockHeld(): void
    {
        $code = 'set_error_handler(fn ($level, $text) => throw new \ErrorException($text));'
            . "try {\nif (\$client->acquire('x')) { echo 'not reached'; }\n} catch (\ErrorException) {\n"
            . '$lock = \Lockd\Client::connect($url)->acquire("x", 30.0); work(); }';
        self::assertSame("worked\n", self::outputOf($code, '1'));
    }

    private static function outputOf(string $code, string $assertions): string
    {
        assert(self::$server !== null);
        $bootstrap = var_export(dirname(__DIR__) . '/bootstrap.php', true);
        $url = var_export(self::$server->unix(), true);
        $script = self::$server->directory() . '/code.php';
        file_put_contents($script, <<<PHP
            <?php
            namespace App;
            require $bootstrap;
            set_error_handler(function (int \$level, string \$text): bool {
                // From 8.5 on PHP itself has a warning for a statement that is only a call.
                str_starts_with(\$text, 'lockd:') && print("warned: \$text\n");
                return true;
            });
            set_exception_handler(fn (\Throwable \$e) => print("worked, and {\$e->getMessage()}\n"));
            function work(...\$of) { echo "worked\n"; return 1; }
            function tryIt(\$client) { return \$client->acquire("x"); }
            function tryItAgain(\$client) { return tryIt(\$client) ?? null; }
            function worksUnderIt(\$client) { \$lock = \$client->acquire("x"); return true; }
            function held(\$client) { yield \$client->acquire("x"); }
            class Job {
                function __construct(private \$lock) { }
                function run() { work(); }
            }
            class Locks {
                function __construct(private \$client) { }
                function of(\$name) { return \$this->client->acquire(\$name); }
            }
            (function (\$client, \$url) { $code })(\\Lockd\\Client::connect($url), $url);
            PHP);
        $command = [PHP_BINARY, '-d', "zend.assertions=$assertions", '-d', 'display_errors=1', $script];
        $process = proc_open($command, [['file', '/dev/null', 'r'], ['pipe', 'w'], ['redirect', 1]], $pipes);
        self::assertIsResource($process);
        $output = (string) stream_get_contents($pipes[1]);
        proc_close($process);
        return $output;
    }
}
