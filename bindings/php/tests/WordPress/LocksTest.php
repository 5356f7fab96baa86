<?php

declare(strict_types=1);

namespace Lockd\Tests\WordPress;

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Nothing;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Standby;
use Lockd\WordPress\Locks;
use PHPUnit\Framework\TestCase;
use RuntimeException;

/** The locks and the plugin with a real server, and with stand-ins for WordPress's functions. */
final class LocksTest extends TestCase
{
    private Server $server;
    private Locks $ours;
    private Locks $theirs;
    private string $oldLog;

    public static function setUpBeforeClass(): void
    {
        require_once __DIR__ . '/stubs.php';
    }

    protected function setUp(): void
    {
        $GLOBALS['hooks'] = [];
        $this->server = new Server();
        $this->ours = $this->locks();
        $this->theirs = $this->locks();
        $this->oldLog = (string) ini_set('error_log', $this->server->directory() . '/errors');
    }

    protected function tearDown(): void
    {
        ini_set('error_log', $this->oldLog);
    }

    /** A new request to the site, or to another site. */
    private function locks(string $prefix = 'shop/wp_/'): Locks
    {
        return new Locks($this->server->tcp(), static fn (): string => $prefix);
    }

    private function errors(): string
    {
        return (string) @file_get_contents($this->server->directory() . '/errors');
    }

    public function testExcludesOtherRequestsOfTheSite(): void
    {
        $lock = $this->ours->acquire('import');
        self::assertSame('shop/wp_/import', $lock?->name());
        self::assertNull($this->theirs->acquire('import', 0.01));
        self::assertNull($this->ours->acquire('import'));
        self::assertNotNull($this->locks('blog/wp_/')->acquire('import'));
        $lock->release();
        self::assertNotNull($this->theirs->acquire('import'));
        self::assertSame('', $this->errors());
    }

    public function testTheServerMayHaveSeveralPlaces(): void
    {
        [$standby, $nothing] = [Standby::start(), new Nothing()];
        $url = "tcp://$standby->place,$nothing->place,{$this->server->place()}";
        $prefix = static fn (): string => 'shop/wp_/';
        $lock = (new Locks($url, $prefix))->acquire('import');
        self::assertNotNull($lock);
        self::assertNull($this->theirs->acquire('import'));
        self::assertNull((new Locks("tcp://$standby->place,$nothing->place", $prefix))->acquire('import'));
        self::assertStringContainsString('no server of the group is active', $this->errors());
    }

    public function testRunsTheBodyUnlessAnotherHoldsTheLock(): void
    {
        $ran = [];
        self::assertTrue($this->ours->once('import', function () use (&$ran): void {
            $ran[] = 'ours';
            self::assertFalse($this->theirs->once('import', fn () => self::fail('two holders at once')));
            self::assertFalse($this->ours->once('import', fn () => self::fail('two holders at once')));
        }));
        self::assertTrue($this->theirs->once('import', function () use (&$ran): void {
            $ran[] = 'theirs';
        }));
        self::assertSame(['ours', 'theirs'], $ran);
    }

    public function testReleasesWhenTheBodyThrows(): void
    {
        try {
            $this->ours->once('import', fn () => throw new RuntimeException('oops'));
            self::fail('the exception was lost');
        } catch (RuntimeException $e) {
            self::assertSame('oops', $e->getMessage());
        }
        self::assertNotNull($this->theirs->acquire('import'));
    }

    public function testRunsNothingWithoutAServer(): void
    {
        $heard = [];
        add_action('lockd_unavailable', function (\Throwable $e, string $name) use (&$heard): void {
            $heard[] = [$e::class, $name];
        }, 10, 2);
        $this->server->kill();
        $this->ours->cronOnce('shop_sync', fn () => self::fail('not held'));
        self::assertNull($this->ours->acquire('import', 5.0));
        self::assertFalse($this->ours->once('import', fn () => self::fail('not held')));
        do_action('shop_sync');
        $event = 'shop/wp_/cron/shop_sync/' . md5(serialize(['']));
        self::assertSame([
            [ConnectException::class, 'shop/wp_/import'],
            [ConnectException::class, 'shop/wp_/import'],
            [ConnectException::class, $event],
        ], $heard);
        self::assertStringContainsString('lockd: no lock "shop/wp_/import": cannot connect', $this->errors());
    }

    public function testAnUnreachableServerIsNotTriedAgainForAWhile(): void
    {
        $socket = $this->server->directory() . '/later';
        $prefix = static fn (): string => 'shop/wp_/';
        [$patient, $brief] = [new Locks("unix:$socket", $prefix, 60.0), new Locks("unix:$socket", $prefix, 0.01)];
        self::assertNull($patient->acquire('import'));
        self::assertNull($brief->acquire('report'));
        symlink($this->server->socket(), $socket);
        self::assertNull($patient->acquire('import'));
        self::assertNotNull((new Locks("unix:$socket", $prefix))->acquire('import'));
        $isGranted = static fn (): bool => $brief->acquire('report')?->isHeld() === true;
        Deadline::until('the server is tried again', $isGranted);
    }

    public function testReportsALockThatWasLostWhileTheCallbackRan(): void
    {
        add_action('lockd_unavailable', function (\Throwable $e) use (&$heard): void {
            $heard = $e::class;
        });
        self::assertTrue($this->ours->once('import', fn () => $this->server->kill()));
        self::assertSame(ConnectionLostException::class, $heard);
        self::assertStringContainsString('shop/wp_/import', $this->errors());
    }

    public function testANameThatIsTooLongIsAnInvalidArgument(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->ours->acquire(str_repeat('a', 1025));
    }

    public function testAnEventRunsOnOneServerAtATime(): void
    {
        $ran = [];
        $this->theirs->cronOnce('shop_sync', function (string $shop) use (&$ran): void {
            $ran[] = "theirs $shop";
        });
        $theirs = $GLOBALS['hooks'];
        $GLOBALS['hooks'] = [];
        $ours = function (string $shop) use (&$ran, $theirs): void {
            $ran[] = "ours $shop";
            $GLOBALS['hooks'] = $theirs;
            do_action_ref_array('shop_sync', ['a']);
            do_action_ref_array('shop_sync', ['b']);
        };
        $this->ours->cronOnce('shop_sync', $ours);
        do_action_ref_array('shop_sync', ['a']);
        do_action_ref_array('shop_sync', ['a']);
        self::assertSame(['ours a', 'theirs b', 'theirs a'], $ran);
    }

    public function testAnEventsCallbackGetsTheActionsArguments(): void
    {
        $this->ours->cronOnce('shop_sync', function (mixed ...$arguments) use (&$given): void {
            $given = $arguments;
        }, 5, 2);
        self::assertSame([5], array_keys($GLOBALS['hooks']['shop_sync']));
        do_action_ref_array('shop_sync', [1, 'two', 3]);
        self::assertSame([1, 'two'], $given);
    }

    public function testCronRunsOnOneServerAtATime(): void
    {
        [$ours, $due] = $this->request('wp_', 'cron');
        self::assertSame([['due'], ['due']], $due);
        [$theirs, $due] = $this->request('wp_', 'cron');
        self::assertSame([[], []], $due);
        [$page, $due] = $this->request('wp_', 'page');
        self::assertSame([['due'], ['due']], $due);
        [$blog, $due] = $this->request('wp_2_', 'cron');
        self::assertSame([['due'], ['due']], $due);

        $names = [];
        foreach (Client::connect($this->server->tcp())->list() as $lock) {
            $names[] = $lock->name;
        }
        self::assertSame(['shop/wp_/wp-cron', 'shop/wp_2_/wp-cron'], $names);
        array_map(self::end(...), [$ours, $theirs, $page, $blog]);

        [$theirs, $due] = $this->request('wp_', 'cron');
        self::assertSame([['due'], ['due']], $due);
        self::end($theirs);
    }

    public function testCronDoesNotRunWithoutAServer(): void
    {
        $url = $this->server->tcp();
        $this->server->kill();
        [$ours, $due] = $this->request('wp_', 'cron', $url);
        self::assertSame([[], []], $due);
        self::end($ours);
        self::assertStringContainsString('no lock "shop/wp_/wp-cron"', $this->errors());
    }

    public function testTheCronLockIsReleasedWithItsRequestIfTheProcessLivesOn(): void
    {
        [$ours, $due] = $this->request('wp_', 'cron');
        self::assertSame([['due'], ['due']], $due);
        fwrite($ours[1][0], "\n");
        self::assertSame("over\n", fgets($ours[1][1]));
        [$theirs, $due] = $this->request('wp_', 'cron');
        self::assertSame([['due'], ['due']], $due);
        array_map(self::end(...), [$ours, $theirs]);
    }

    /** @dataProvider invalidConstants */
    public function testWithInvalidConstantsOnlyPagesRun(?string $url, string $timeout, string $why): void
    {
        [$ours, $due] = $this->request('wp_', 'cron', $url, $timeout);
        self::assertSame([[], []], $due);
        self::assertStringContainsString('no lock "shop/wp_/wp-cron": ' . $why, $this->errors());
        [$page, $due] = $this->request('wp_', 'page', $url, $timeout);
        self::assertSame([['due'], ['due']], $due);
        array_map(self::end(...), [$ours, $page]);
    }

    /** @return list<array{?string, string, string}> */
    public function invalidConstants(): array
    {
        $limit = 'the time limit of a connection (LOCKD_TIMEOUT) is a number of seconds above 0';
        return [
            ['localhost', '2', 'not the address of a server: "localhost"'],
            ['', '2', 'not the address of a server: ""'],
            [null, '-1', $limit],
            [null, '', $limit],
            [null, 'soon', $limit],
        ];
    }

    /** @return array{array{resource, array<int, resource>}, mixed} the request, and its due jobs */
    private function request(string $prefix, string $what, ?string $url = null, string $timeout = '2'): array
    {
        $command = [PHP_BINARY, '-d', 'error_log=' . $this->server->directory() . '/errors', __DIR__ . '/cron.php'];
        $streams = [['pipe', 'r'], ['pipe', 'w'], STDERR];
        $process = proc_open([...$command, $url ?? $this->server->tcp(), $prefix, $what, $timeout], $streams, $pipes);
        self::assertIsResource($process);
        stream_set_timeout($pipes[1], 30);
        return [[$process, $pipes], json_decode((string) fgets($pipes[1]), true)];
    }

    /** @param array{resource, array<int, resource>} $request */
    private static function end(array $request): void
    {
        [$process, $pipes] = $request;
        fclose($pipes[0]);
        Deadline::until('the request ends', fn (): bool => !proc_get_status($process)['running']);
        proc_close($process);
    }
}
