<?php

declare(strict_types=1);

namespace Lockd\Tests\Transport;

use Lockd\Exception\ConnectionLostException;
use Lockd\Message\Address;
use Lockd\Message\Connection;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\FakePeer;
use Lockd\Transport\Attempt;
use PHPUnit\Framework\TestCase;

/** Attempts to reach a server again, step by step. */
final class AttemptTest extends TestCase
{
    /** In seconds: more than an attempt may take. */
    private const TOO_LONG = 2.1;

    /** @return array{string, array<string, mixed>, list<string>} */
    private static function ping(): array
    {
        return ['ping', [], ['claimed']];
    }

    /**
     * A listener that swallows the first packets of the attempt.
     *
     * @return array{resource, Attempt, list<resource>} also the connections that keep its queue full
     */
    private static function swallowed(): array
    {
        $context = stream_context_create(['socket' => ['backlog' => 0]]);
        $flags = STREAM_SERVER_BIND | STREAM_SERVER_LISTEN;
        $listener = stream_socket_server('tcp://127.0.0.1:0', $no, $error, $flags, $context);
        self::assertIsResource($listener);
        $remote = 'tcp://' . stream_socket_get_name($listener, false);
        $others = [];
        for ($number = 0; $number < 4; $number++) {
            $flags = STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT;
            $others[] = stream_socket_client($remote, $no, $error, 1.0, $flags);
        }
        // Those that are not in the queue would ask again, and take the place of the attempt.
        $others = array_values(array_filter($others, static fn ($other): bool =>
            stream_socket_get_name($other, true) !== false));
        return [$listener, new Attempt(Connection::begin(Address::parse($remote), $remote, 30.0)), $others];
    }

    private static function waitTooLong(): void
    {
        $began = microtime(true);
        Deadline::until('the limit is over', static fn (): bool => microtime(true) - $began > self::TOO_LONG);
    }

    public function testAnAttemptThatDoesNotConnectIsGivenUp(): void
    {
        [, $attempt] = self::swallowed();
        self::assertFalse($attempt->step(self::ping(...)));
        self::waitTooLong();
        $this->expectException(ConnectionLostException::class);
        $attempt->step(self::ping(...));
    }

    /** The limit is for the server, and not for a program that looks seldom. */
    public function testWhoLooksAfterTheLimitFindsAConnectionAndUsesIt(): void
    {
        [$listener, $attempt, $others] = self::swallowed();
        self::assertFalse($attempt->step(self::ping(...)));
        self::waitTooLong();
        $accepted = [];
        while (count($accepted) < count($others) + 1) {
            $peer = stream_socket_accept($listener, 30.0);
            self::assertIsResource($peer);
            $accepted[(string) stream_socket_get_name($peer, true)] = $peer;
        }
        foreach ($others as $other) {
            unset($accepted[(string) stream_socket_get_name($other, false)]);
        }
        self::assertCount(1, $accepted);
        self::assertFalse($attempt->step(self::ping(...)));
        $peer = new FakePeer(reset($accepted));
        $peer->answer($peer->receive(), ['status' => 'ok', 'more' => 7]);
        Deadline::until('it is answered', static fn (): bool => $attempt->step(self::ping(...)));
        self::assertSame([7, ['claimed']], [$attempt->answer()->integer('more'), $attempt->claimed()]);
    }
}
