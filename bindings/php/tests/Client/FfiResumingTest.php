<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Tests\Support\Server;

/** As {@see StreamResumingTest}, through liblockd. */
final class FfiResumingTest extends ServedContract
{
    protected static function connect(string $url, ?string $owner, float $timeout): Client
    {
        return Client::connectByFfi($url, $owner, $timeout, resume: true);
    }

    protected static function url(Server $server): string
    {
        return $server->tcp();
    }

    protected static function newServer(): Server
    {
        return new Server(remembers: true);
    }

    public function testItCanResume(): void
    {
        self::assertTrue(self::client()->isResumable());
    }
}
