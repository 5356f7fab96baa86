<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Tests\Support\Recipe;
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
        $example = str_replace($address, $url, "$before\n" . Recipe::in('README.md', $call), $count);
        self::assertSame(1, $count);
        self::assertSame([$output, 0], Recipe::run($example, $server));
    }

    /** What nextJob() returns next, and what was performed. */
    private static array $jobs = [];
    private static array $performed = [];

    public static function nextJob(): ?string
    {
        return (array_shift(self::$jobs) ?? static fn () => null)();
    }

    public static function perform(string $job, ?int $token): void
    {
        self::$performed[$job] = $token;
    }

    public function testTheWorkerSurvivesARestartOfTheServer(): void
    {
        $server = new Server();
        self::$performed = [];
        self::$jobs = [
            static fn (): string => 'first',
            static fn (): string => 'second',
            static function () use ($server): string {
                $server->restartCleanly();
                return 'third';
            },
        ];
        $example = Recipe::in('README.md', 'while ($job = nextJob())');
        $example = strtr($example, [
            'tcp://127.0.0.1:20934' => $server->tcp(),
            'nextJob()' => '\\' . self::class . '::nextJob()',
            'perform($job)' => '\\' . self::class . '::perform($job, $lock?->isHeld() ? $lock->token() : null)',
            'error_log(' => 'strlen(',
        ]);
        eval($example);
        self::assertSame(['first', 'second', 'third'], array_keys(self::$performed));
        self::assertNotContains(null, self::$performed, 'a job was performed without the lock');
        self::assertSame(self::$performed['first'], self::$performed['second']);
        self::assertGreaterThan(self::$performed['second'], self::$performed['third']);
    }

    /** @return iterable<string> */
    public static function batches(Server $server): iterable
    {
        yield 'first';
        $server->restartCleanly();
        yield 'second';
        $server->restart();
        yield 'third';
    }

    public static function import(string $batch): void
    {
        self::$performed[] = $batch;
    }

    public function testTheImportGoesOnAfterARestartOfTheServer(): void
    {
        $server = new Server(remembers: true);
        self::$performed = [];
        $example = strtr(Recipe::in('README.md', 'import($batch)'), [
            'tcp://127.0.0.1:20934' => $server->tcp(),
            'batches()' => '\\' . self::class . '::batches($server)',
            'import($batch)' => '\\' . self::class . '::import($batch)',
        ]);
        eval($example);
        self::assertSame(['first', 'second', 'third'], self::$performed);
    }

    public function testTheExampleOfSessionsShowsThatTheServerIsDown(): void
    {
        $example = strtr(Recipe::in('README.md', 'session_set_save_handler('), ['10.0.0.1:20934' => '127.0.0.1:1']);
        [$output, $status] = Recipe::run("\$handler = new SessionHandler();\n$example", new Server());
        self::assertStringContainsString('the session cannot be locked: cannot connect to tcp://127.0.0.1:1', $output);
        self::assertStringContainsString('RuntimeException: the session could not be locked', $output);
        self::assertNotSame(0, $status);
    }

    public function testTheExampleThatWaitsForTheServerSaysSoOnce(): void
    {
        $nowhere = ['tcp://127.0.0.1:20934' => 'tcp://127.0.0.1:1', '3600.0' => '2.0'];
        [$output, $status] = Recipe::run(strtr(Recipe::in('README.md', 'connectAndAcquire('), $nowhere), new Server());
        // In two seconds there are several attempts.
        self::assertSame(1, substr_count($output, 'still trying'), $output);
        self::assertStringContainsString('ConnectException', $output);
        self::assertNotSame(0, $status);
    }
}
