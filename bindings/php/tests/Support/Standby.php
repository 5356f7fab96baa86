<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

/**
 * A standby of a cluster, in a forked child: it accepts connections, answers the first request on each
 * of them as a standby does, and ends it.
 */
final class Standby
{
    private function __construct(private readonly Child $child, public readonly string $place)
    {
    }

    /** @param ?string $active the place that it names as the active server; null: it knows none */
    public static function start(?string $active = null): self
    {
        $listener = stream_socket_server('tcp://127.0.0.1:0');
        assert($listener !== false);
        $place = (string) stream_socket_get_name($listener, false);
        $child = Child::start(static function (callable $say) use ($listener, $active): void {
            while (true) {
                $stream = stream_socket_accept($listener, 300.0);
                if ($stream !== false) {
                    self::serve($stream, $active);
                    $say('asked');
                }
            }
        });
        fclose($listener);
        return new self($child, $place);
    }

    /** @param resource $stream */
    private static function serve($stream, ?string $active): void
    {
        stream_set_timeout($stream, 30);
        $header = (string) stream_get_contents($stream, 4);
        if (strlen($header) === 4) {
            $request = json_decode((string) stream_get_contents($stream, unpack('N', $header)[1]), true);
            $answer = ['id' => $request['id'], 'result' => self::answer($active)];
            @fwrite($stream, FakeServer::frame($answer));
        }
        fclose($stream);
    }

    /** @return array<string, string> what a standby says to each request */
    public static function answer(?string $active = null): array
    {
        $reason = 'this server is a standby of the cluster shop';
        return $active === null
            ? ['status' => 'refused', 'reason' => $reason, 'cause' => 'standby']
            : ['status' => 'refused', 'reason' => "$reason; the active server is $active", 'cause' => 'standby',
                'active' => $active];
    }

    /** Waits until it has been asked once more. */
    public function hear(): string
    {
        return $this->child->hear();
    }

    public function __destruct()
    {
        $this->child->kill();
    }
}
