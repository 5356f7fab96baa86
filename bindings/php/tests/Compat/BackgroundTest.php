<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

use lockc;
use Lockd\Tests\Support\Deadline;
use pkLockClient;

require_once __DIR__ . '/../../compat/lockc.php';
require_once __DIR__ . '/../../compat/pkLockClient.php';

/** A program in the background inherits the connection. It must not keep the locks. */
final class BackgroundTest extends CompatTestCase
{
    /** @return iterable<string, array{string, string, 'lockd'|'message'}> */
    public function classes(): iterable
    {
        $options = "['host' => '127.0.0.1', 'port' => \$argv[2], 'timeLimit' => 0]";
        return [
            'lockc' => ['lockc.php', "lockc('127.0.0.1', \$argv[2])", 'lockd'],
            'pkLockClient' => ['pkLockClient.php', "pkLockClient($options)", 'message'],
        ];
    }

    /** Asserts that another client gets the lock. */
    private function assertBecomesFree(): void
    {
        $other = new lockc('127.0.0.1', $this->server->port('lockd'));
        Deadline::until('the lock is free', static fn (): bool => $other->lock('held') === 1);
    }

    public function testLockc(): void
    {
        $client = new lockc('127.0.0.1', $this->server->port('lockd'));
        self::assertSame(1, $client->lock('held'));
        $this->startInBackground();
        unset($client);
        $this->assertBecomesFree();
    }

    public function testPkLockClient(): void
    {
        $client = new pkLockClient(['host' => '127.0.0.1', 'port' => $this->server->port()]);
        self::assertTrue($client->lock('held'));
        $this->startInBackground();
        unset($client);
        $this->assertBecomesFree();
    }

    /**
     * PHP calls no destructors then.
     *
     * @dataProvider classes
     */
    public function testAfterOutOfMemory(string $file, string $new, string $protocol): void
    {
        $script = <<<PHP
            <?php
            require \$argv[1];
            \$client = new $new;
            register_shutdown_function(function () use (\$client) {
                echo \$client->lock('a lock') ? 'connected, ' : 'lost, ';
            });
            echo \$client->lock('held') ? 'locked ' : 'not locked ';
            \$null = ['file', '/dev/null', 'w'];
            \$process = proc_open(['sleep', '600'], [['file', '/dev/null', 'r'], \$null, \$null], \$pipes);
            echo proc_get_status(\$process)['pid'], ' ';
            ini_set('memory_limit', '4M');
            str_repeat('x', 100000000);
            PHP;
        $output = $this->runScript($script, self::COMPAT . $file, [(string) $this->server->port($protocol)]);
        $said = stream_get_contents($output);
        self::assertSame(1, preg_match('/^locked (\d+) .*connected, $/s', $said, $parts), $said);
        try {
            $this->assertBecomesFree();
            self::assertFileExists("/proc/$parts[1]/fd", 'the program has already ended');
        } finally {
            posix_kill((int) $parts[1], SIGKILL);
        }
    }
}
