<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Tests\Support\Server;

final class FfiTcpTest extends EndingContract
{
    protected static function connect(string $url, ?string $owner, float $timeout): Client
    {
        return Client::connectByFfi($url, $owner, $timeout);
    }

    protected static function url(Server $server): string
    {
        return $server->tcp();
    }
}
