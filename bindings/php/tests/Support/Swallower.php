<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/** An address whose packets are swallowed: who connects to it gets no answer, not even that nobody is there. */
final class Swallower
{
    /** @var list<resource> what keeps the queue of the listener full, and its listener */
    private array $sockets = [];

    /** @param string $host an address of the loopback interface */
    public function __construct(string $host, int $port)
    {
        $context = stream_context_create(['socket' => ['backlog' => 0]]);
        $flags = STREAM_SERVER_BIND | STREAM_SERVER_LISTEN;
        $listener = stream_socket_server("tcp://$host:$port", $no, $error, $flags, $context);
        if ($listener === false) {
            throw new RuntimeException("cannot listen on $host: $error");
        }
        $this->sockets[] = $listener;
        // Linux keeps one connection more than the backlog says, and drops what asks for another one.
        for ($connections = 0; $connections < 4; $connections++) {
            $flags = STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT;
            $this->sockets[] = stream_socket_client("tcp://$host:$port", $no, $error, 1.0, $flags)
                ?: throw new RuntimeException("cannot connect to $host: $error");
        }
    }
}
