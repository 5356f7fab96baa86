<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\TimeoutException;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/**
 * Calls through liblockd to a server that hangs while its kernel still answers: each must end by
 * itself.
 */
final class HungServerTest extends TestCase
{
    /** The shortest allowed, because this is how long a call waits. */
    private const DEAD_PEER_TIMEOUT = '12';

    public function testEveryCallToAHungServerEnds(): void
    {
        $server = new Server(['--dead-peer-timeout', self::DEAD_PEER_TIMEOUT]);
        $client = Client::connectByFfi($server->tcp());
        $lock = $client->acquire('held', 0.0);
        self::assertNotNull($lock);
        $server->pause();
        try {
            $second = $client->acquire('free', 3600.0);
            self::fail('a hung server cannot have granted the lock');
        } catch (TimeoutException) {
            self::assertTrue($client->stands(), 'the session is still alive');
        }
        try {
            $lock->release();
            self::fail('a hung server cannot have confirmed the release');
        } catch (ConnectionLostException) {
            self::assertFalse($lock->isHeld());
        }
        unset($lock);
        $client->close();
        $server->resume();
        self::assertNotNull(Client::connect($server->tcp())->acquire('held', 30.0), 'the lock was not freed');
    }
}
