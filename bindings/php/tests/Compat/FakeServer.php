<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

/** A server that does with each connection, one after the other, what a test tells it: in a process of its own. */
final class FakeServer
{
    public readonly int $port;
    private int $pid;

    /** @param callable(resource): void $serve what is done with a connection */
    public function __construct(callable $serve)
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        $this->port = (int) substr(strrchr(stream_socket_get_name($listener, false), ':'), 1);
        $this->pid = pcntl_fork();
        if ($this->pid === 0) {
            try {
                while (($connection = stream_socket_accept($listener, 600)) !== false) {
                    $serve($connection);
                    fclose($connection);
                }
            } finally {
                posix_kill(getmypid(), SIGKILL);
            }
        }
        fclose($listener);
    }

    /**
     * Answers the lines of a client with these, whatever they ask, one by one.
     *
     * @param list<string> $replies
     */
    public static function ofLines(array $replies): self
    {
        return new self(static function ($connection) use ($replies): void {
            foreach ($replies as $reply) {
                fgets($connection);
                fwrite($connection, $reply);
            }
            // Nothing more, until the client goes.
            fgets($connection);
        });
    }

    /**
     * The next message of a client; null when it has gone.
     *
     * @param resource $connection
     */
    public static function receive($connection): ?array
    {
        $header = (string) stream_get_contents($connection, 4);
        if (strlen($header) < 4) {
            return null;
        }
        return json_decode(stream_get_contents($connection, unpack('N', $header)[1]), true);
    }

    public static function frame(array $message): string
    {
        $json = json_encode($message);
        return pack('N', strlen($json)) . $json;
    }

    public function __destruct()
    {
        posix_kill($this->pid, SIGKILL);
        pcntl_waitpid($this->pid, $status);
    }
}
