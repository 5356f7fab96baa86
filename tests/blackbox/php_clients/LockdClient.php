<?php
declare(strict_types=1);

/** A client of the `lockd` protocol, as the original's users wrote them: one line out, one line in. */
final class LockdClient
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
        return rtrim($reply, "\r\n");
    }

    public function lock(string $name): bool
    {
        return $this->command("g $name")[0] === '1';
    }

    public function unlock(string $name): bool
    {
        return $this->command("r $name")[0] === '1';
    }

    public function isLocked(string $name): bool
    {
        return $this->command("i $name")[0] === '1';
    }

    /** How many hold it now. */
    public function lockShared(string $name): int
    {
        return (int) $this->command("sg $name");
    }

    public function unlockShared(string $name): bool
    {
        return $this->command("sr $name")[0] === '1';
    }

    public function sharedCount(string $name): int
    {
        return (int) $this->command("si $name");
    }

    /** The statistics, read as the original's tools do: up to the closing parenthesis. */
    public function statistics(): array
    {
        fwrite($this->connection, "q\n");
        $statistics = [];
        while (($line = fgets($this->connection)) !== false && $line !== ")\n") {
            if (preg_match('/^    \[(\w+)\] => (\d+)$/', $line, $parts)) {
                $statistics[$parts[1]] = (int) $parts[2];
            }
        }
        return $statistics;
    }

    public function close(): void
    {
        fclose($this->connection);
    }
}
