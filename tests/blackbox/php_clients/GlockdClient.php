<?php
declare(strict_types=1);

/** A client of the `glockd` protocol, which tells the kinds of reply apart by their first number. */
final class GlockdClient
{
    /** @var resource */
    private $connection;

    public function __construct(string $host, int $port)
    {
        $connection = fsockopen($host, $port, $errno, $error, 5.0);
        if ($connection === false) {
            throw new RuntimeException("cannot connect to $host:$port: $error");
        }
        stream_set_timeout($connection, 20);
        $this->connection = $connection;
    }

    public function command(string $line): string
    {
        fwrite($this->connection, "$line\n");
        $reply = fgets($this->connection);
        if ($reply === false) {
            throw new RuntimeException("no reply to: $line");
        }
        return trim($reply);
    }

    public function lock(string $name): bool
    {
        return (int) $this->command("g $name") > 0;
    }

    public function unlock(string $name): bool
    {
        return (int) $this->command("r $name") > 0;
    }

    /** The counters, read up to the last key, since nothing else marks their end. */
    public function counters(): array
    {
        fwrite($this->connection, "q\n");
        $counters = [];
        do {
            $line = fgets($this->connection);
            if ($line === false) {
                throw new RuntimeException('the counters do not end');
            }
            [$key, $number] = explode(': ', trim($line));
            $counters[$key] = (int) $number;
        } while ($key !== 'shared_orphans');
        return $counters;
    }

    public function close(): void
    {
        fclose($this->connection);
    }
}
