<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/** A connection to a {@see ResumingServer}, as that server has it. */
final class FakePeer
{
    /** In seconds: no answer is late because of it. */
    public const DEAD_PEER_TIMEOUT = 25;

    /** @param resource $stream */
    public function __construct(private $stream)
    {
        stream_set_timeout($stream, 30);
        // What PHP has read in advance would be missing where the socket itself is looked at.
        stream_set_read_buffer($stream, 0);
    }

    /** @return array<mixed> the next request */
    public function receive(): array
    {
        $header = stream_get_contents($this->stream, 4);
        if ($header === false || strlen($header) < 4) {
            throw new RuntimeException('the client has ended the connection');
        }
        return json_decode((string) stream_get_contents($this->stream, unpack('N', $header)[1]), true);
    }

    /** @return array<mixed> the next request with that command; the client's pings are answered */
    public function expect(string $command): array
    {
        while (true) {
            $request = $this->receive();
            if ($request['command'] === $command) {
                return $request;
            }
            if ($request['command'] !== 'ping') {
                throw new RuntimeException('unexpected: ' . json_encode($request));
            }
            $this->answer($request, ['status' => 'ok']);
        }
    }

    /**
     * @param array<mixed> $request
     * @param array<mixed> $result
     */
    public function answer(array $request, array $result): void
    {
        $this->send(FakeServer::frame(['id' => $request['id'], 'result' => $result]));
    }

    public function send(string $bytes): void
    {
        // The client may have ended the connection.
        @fwrite($this->stream, $bytes);
    }

    /**
     * Answers a hello or a resume with ok.
     *
     * @param array<mixed> $request
     */
    public function accept(array $request, int $epoch = 7, int $deadPeerTimeout = self::DEAD_PEER_TIMEOUT): void
    {
        $resume = ['session' => str_repeat('5e', 16), 'epoch' => $epoch, 'secret' => str_repeat('ab', 15) . "0$epoch"];
        $this->answer($request, ['status' => 'ok', 'server' => 'lockd', 'version' => '0.1.0',
            'features' => ['limit', 'resume'], 'keepalive' => ['deadPeerTimeout' => $deadPeerTimeout],
            'resume' => $resume]);
    }

    /** Answers the hello with which a session begins. */
    public function hello(int $deadPeerTimeout = self::DEAD_PEER_TIMEOUT): void
    {
        $this->accept($this->expect('hello'), deadPeerTimeout: $deadPeerTimeout);
    }

    /** Grants the lock that is asked for next. */
    public function grant(int $token): void
    {
        $this->answer($this->expect('lock'), ['status' => 'ok', 'token' => $token]);
    }

    /** Answers pings until the client ends the connection: `ended` or `reset`. */
    public function awaitEnd(): string
    {
        stream_set_blocking($this->stream, true);
        $socket = socket_import_stream($this->stream);
        while (true) {
            // PHP's streams do not tell a reset from an end.
            $bytes = @socket_recv($socket, $header, 4, MSG_WAITALL);
            if ($bytes === false || $bytes === 0) {
                return $bytes === 0 ? 'ended' : 'reset';
            }
            socket_recv($socket, $body, unpack('N', $header)[1], MSG_WAITALL);
            $request = json_decode($body, true);
            if ($request['command'] === 'ping') {
                $this->answer($request, ['status' => 'ok']);
            }
        }
    }

    /** Whether the client has neither ended nor reset the connection. Reads what has arrived. */
    public function isOpen(): bool
    {
        $socket = socket_import_stream($this->stream);
        do {
            $bytes = @socket_recv($socket, $read, 65536, MSG_DONTWAIT);
        } while ($bytes > 0);
        return $bytes === false && socket_last_error($socket) === SOCKET_EAGAIN;
    }

    public function reset(): void
    {
        $socket = socket_import_stream($this->stream);
        socket_set_option($socket, SOL_SOCKET, SO_LINGER, ['l_onoff' => 1, 'l_linger' => 0]);
        fclose($this->stream);
    }

    public function close(): void
    {
        fclose($this->stream);
    }
}
