<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

/**
 * A server of the `message` protocol for one connection, in a forked child, which sends what the
 * test says.
 */
final class FakeServer
{
    private function __construct(private readonly Child $child, public readonly string $url)
    {
    }

    /**
     * @param callable(callable(): array<mixed> $receive, callable(string): void $send): void $serve
     *     `$send` sends raw bytes
     */
    public static function start(callable $serve): self
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        assert($listener !== false);
        $url = 'tcp://' . stream_socket_get_name($listener, false);
        $child = Child::start(function () use ($listener, $serve): void {
            $connection = stream_socket_accept($listener, 30.0);
            assert($connection !== false);
            $receive = static function () use ($connection): array {
                $header = stream_get_contents($connection, 4);
                if ($header === false || strlen($header) < 4) {
                    // The client has disconnected.
                    posix_kill(getmypid(), SIGKILL);
                }
                return json_decode((string) stream_get_contents($connection, unpack('N', $header)[1]), true);
            };
            $serve($receive, static fn (string $bytes) => fwrite($connection, $bytes));
            while (($request = $receive()) !== []) {
                continue;
            }
        });
        fclose($listener);
        return new self($child, $url);
    }

    /** @param array<mixed> $message */
    public static function frame(array $message): string
    {
        $body = json_encode($message, JSON_THROW_ON_ERROR);
        return pack('N', strlen($body)) . $body;
    }

    /**
     * The answer to the `hello` with which a client begins.
     *
     * @param list<string> $features what the server can do beyond the original protocol
     * @param int $deadPeerTimeout in seconds; liblockd waits for answers that long
     */
    public static function hello(
        callable $receive,
        callable $send,
        array $features = [],
        int $deadPeerTimeout = 25,
    ): void {
        $request = $receive();
        $keepalive = ['idle' => 4, 'interval' => 1, 'probes' => 4, 'userTimeout' => 8,
            'deadPeerTimeout' => $deadPeerTimeout];
        $result = ['status' => 'ok', 'server' => 'lockd', 'version' => '0.1.0', 'features' => $features,
            'keepalive' => $keepalive];
        $send(self::frame(['id' => $request['id'], 'result' => $result]));
    }

    public function __destruct()
    {
        $this->child->kill();
    }
}
