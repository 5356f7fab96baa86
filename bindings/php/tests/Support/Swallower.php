<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/**
 * An address whose packets are dropped: a connection attempt gets no answer, not even a refusal.
 */
final class Swallower
{
    /** @var list<resource> the listener, and the connections that keep its queue full */
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
        // Linux queues one connection more than the backlog, and drops further attempts.
        for ($connections = 0; $connections < 4; $connections++) {
            $flags = STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT;
            $this->sockets[] = stream_socket_client("tcp://$host:$port", $no, $error, 1.0, $flags)
                ?: throw new RuntimeException("cannot connect to $host: $error");
        }
    }
}
