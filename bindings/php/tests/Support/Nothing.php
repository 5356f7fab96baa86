<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

/** A place where nothing listens, for as long as the object exists. */
final class Nothing
{
    /** @var resource it has the port and does not listen */
    private $socket;

    public readonly string $place;

    public function __construct()
    {
        $flags = STREAM_SERVER_BIND;
        $socket = stream_socket_server('tcp://127.0.0.1:0', $no, $error, $flags);
        assert($socket !== false);
        $this->socket = $socket;
        $this->place = (string) stream_socket_get_name($this->socket, false);
    }
}
