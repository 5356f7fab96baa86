<?php
declare(strict_types=1);

/** A client of the `message` protocol, as pkLockServer's: ids count from 0, and it keeps the time itself. */
final class PkLockClient
{
    /** @var resource */
    private $connection;
    private int $nextId = 0;
    private string $received = '';

    public function __construct(string $host, int $port)
    {
        $connection = stream_socket_client("tcp://$host:$port", $errno, $error, 5.0);
        if ($connection === false) {
            throw new RuntimeException("cannot connect to $host:$port: $error");
        }
        $this->connection = $connection;
    }

    /** Waits for the lock; false as a time limit is to wait for ever. */
    public function lock(string $name, float|false $timeLimit = false): bool
    {
        $id = $this->nextId++;
        $this->send(['command' => 'lock', 'parameters' => ['lockName' => $name], 'id' => $id]);
        $end = $timeLimit === false ? null : microtime(true) + $timeLimit;
        while (($message = $this->receive($end)) !== null) {
            if (($message['id'] ?? null) === $id) {
                return $message['result']['status'] === 'ok';
            }
        }
        // The time is over: an unlock gives the lock up, whether it has been granted by now or not.
        $this->unlock($name);
        return false;
    }

    /** `ok` or `notFound`. */
    public function unlock(string $name): string
    {
        $this->send(['command' => 'unlock', 'lockName' => $name]);
        do {
            $message = $this->receive(microtime(true) + 20.0);
            if ($message === null) {
                throw new RuntimeException("no reply to the unlock of $name");
            }
        } while (($message['attempted'] ?? null) !== 'unlock' || ($message['lockName'] ?? null) !== $name);
        return $message['result'];
    }

    public function close(): void
    {
        fclose($this->connection);
    }

    private function send(array $message): void
    {
        $body = json_encode($message, JSON_THROW_ON_ERROR);
        $frame = pack('N', strlen($body)) . $body;
        while ($frame !== '') {
            $written = fwrite($this->connection, $frame);
            if ($written === false || $written === 0) {
                throw new RuntimeException('cannot write');
            }
            $frame = substr($frame, $written);
        }
    }

    /** The next message, or null if none has come by the time `end`. */
    private function receive(?float $end): ?array
    {
        if (!$this->fill(4, $end)) {
            return null;
        }
        $length = unpack('N', $this->received)[1];
        // What has begun to arrive arrives.
        $this->fill(4 + $length, null);
        $body = substr($this->received, 4, $length);
        $this->received = substr($this->received, 4 + $length);
        return json_decode($body, true, 512, JSON_THROW_ON_ERROR);
    }

    /** Reads until this many bytes are there. */
    private function fill(int $length, ?float $end): bool
    {
        while (strlen($this->received) < $length) {
            $readable = [$this->connection];
            $none = null;
            $microseconds = $end === null ? null : max(0, (int) (($end - microtime(true)) * 1e6));
            $seconds = $microseconds === null ? null : intdiv($microseconds, 1_000_000);
            $rest = $microseconds === null ? null : $microseconds % 1_000_000;
            if (stream_select($readable, $none, $none, $seconds, $rest) === 0) {
                return false;
            }
            $bytes = fread($this->connection, 8192);
            if ($bytes === false || $bytes === '') {
                throw new RuntimeException('the server has ended the connection');
            }
            $this->received .= $bytes;
        }
        return true;
    }
}
