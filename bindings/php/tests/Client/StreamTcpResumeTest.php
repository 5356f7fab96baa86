<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Lock;
use Lockd\Tests\Support\Server;

final class StreamTcpResumeTest extends ResumingContract
{
    protected static function connect(string $urls, ?string $owner = null): Client
    {
        return Client::connect($urls, $owner, 30.0, resume: true);
    }

    protected static function connectAndAcquire(string $url, string $name, ?callable $onWait = null): ?Lock
    {
        return Client::connectAndAcquire($url, $name, 30.0, onWait: $onWait, resume: true);
    }

    protected static function url(Server $server): string
    {
        return $server->tcp();
    }
}
