<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

use Lockd\Client;
use Lockd\Exception\RefusedException;
use Lockd\Message\Inheritance;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** A lock is kept for the programs that inherit it only if they do inherit it. */
final class InheritanceTest extends TestCase
{
    public function testKnowsWhetherAProgramInheritsASocket(): void
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $socket = stream_socket_client('tcp://' . stream_socket_get_name($listener, false));
        self::assertTrue(Inheritance::isSure($socket));
        // PHP marks its end of this one as close-on-exec.
        $program = proc_open(['cat'], [['socket'], ['null']], $ends);
        self::assertFalse(Inheritance::isSure($ends[0]));
        fclose($ends[0]);
        proc_close($program);
    }

    public function testALockThroughLiblockdIsNotKeptForPrograms(): void
    {
        $server = new Server();
        $lock = Client::connectAndAcquireByFfi($server->unix(), 'report', 0.0);
        self::assertNotNull($lock);
        try {
            $lock->keepForChildren();
            self::fail('it was kept');
        } catch (RefusedException) {
            self::assertTrue($lock->isHeld());
        }
        unset($lock);
        self::assertFalse(Client::connect($server->tcp())->inspect('report')->isHeld());
    }
}
