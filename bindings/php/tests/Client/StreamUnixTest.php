<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Tests\Support\Server;

final class StreamUnixTest extends EndingContract
{
    protected static function connect(string $url, ?string $owner, float $timeout): Client
    {
        return Client::connect($url, $owner, $timeout);
    }

    protected static function url(Server $server): string
    {
        return $server->unix();
    }
}
