<?php

declare(strict_types=1);

namespace Lockd\Tests\Support;

use RuntimeException;

/**
 * A server of the `message` protocol for sessions that resume, in a forked child, which does on any
 * number of connections what the test says.
 */
final class ResumingServer
{
    private function __construct(private readonly Child $child, public readonly string $url)
    {
    }

    /**
     * @param callable(callable(): FakePeer $accept, callable(string): void $say, callable(): void $pause): void $serve
     *     `$say` reports a line, and `$pause` waits until the test says so
     * @param ?string $path of a Unix socket; null: TCP
     */
    public static function start(callable $serve, ?string $path = null): self
    {
        $listener = stream_socket_server($path === null ? 'tcp://127.0.0.1:0' : "unix://$path");
        assert($listener !== false);
        $name = stream_socket_get_name($listener, false);
        $child = Child::start(static function (callable $say, callable $pause) use ($listener, $serve): void {
            $accept = static function () use ($listener): FakePeer {
                $stream = stream_socket_accept($listener, 30.0);
                return new FakePeer($stream ?: throw new RuntimeException('no client has connected'));
            };
            $serve($accept, $say, $pause);
        });
        fclose($listener);
        return new self($child, ($path === null ? "tcp://$name" : "unix:$path") . '?resume');
    }

    /** The next line that it reports; `done`: it has done everything, and ends. */
    public function hear(): string
    {
        return $this->child->hear();
    }

    /** The address without the scheme and what follows: one place of a group. */
    public function place(): string
    {
        return substr($this->url, strlen('tcp://'), -strlen('?resume'));
    }

    public function goOn(): void
    {
        $this->child->goOn();
    }

    public function __destruct()
    {
        $this->child->kill();
    }
}
