<?php

declare(strict_types=1);

namespace Lockd\Tests\Compat;

/**
 * A server in a process of its own. It handles connections one after the other, as the test says.
 */
final class FakeServer
{
    public readonly int $port;
    private int $pid;

    /** @param callable(resource): void $serve handles one connection */
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
     * Answers a client's lines with these replies, one by one, whatever the lines contain.
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
            // Send nothing more until the client disconnects.
            fgets($connection);
        });
    }

    /**
     * The next message of a client; null: it has disconnected.
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
