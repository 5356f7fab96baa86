<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\TimeoutException;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Calls over liblockd to a server that hangs, while its kernel answers for it: each ends by itself. */
final class HungServerTest extends TestCase
{
    /** The shortest there is, since that is for how long a call waits. */
    private const DEAD_PEER_TIMEOUT = '12';

    public function testEveryCallEndsByItself(): void
    {
        $server = new Server(['--dead-peer-timeout', self::DEAD_PEER_TIMEOUT]);
        $client = Client::connectByFfi($server->tcp());
        $lock = $client->acquire('held', 0.0);
        self::assertNotNull($lock);
        $server->pause();
        try {
            $client->acquire('free', 3600.0);
            self::fail('nobody can have granted it');
        } catch (TimeoutException) {
            self::assertTrue($client->stands(), 'the client is as it was');
        }
        try {
            $lock->release();
            self::fail('nobody can have confirmed it');
        } catch (ConnectionLostException) {
            self::assertFalse($lock->isHeld());
        }
        unset($lock);
        $client->close();
        $server->resume();
        self::assertNotNull(Client::connect($server->tcp())->acquire('held', 30.0), 'it was left behind');
    }
}
