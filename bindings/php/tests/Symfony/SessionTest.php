<?php

declare(strict_types=1);

namespace Lockd\Tests\Symfony;

use Lockd\Client;
use Lockd\Tests\Session\Request;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

/** Sessions that Symfony's handlers keep, in PHP's strict mode, which Symfony turns on. */
final class SessionTest extends TestCase
{
    private const ID = 'b5e0a1';

    private Server $server;
    private Client $client;

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->client = Client::connect($this->server->tcp());
        // In strict mode a session must exist before a request can name it.
        $request = $this->request(strict: false);
        $request->quietly('start');
        $request->quietly('add 1');
        self::assertTrue($request->quietly('write'));
    }

    private function request(float $timeout = 60.0, bool $strict = true): Request
    {
        return new Request(
            [$this->server->tcp(), (string) $timeout, UnlockedSessions::class, $this->server->directory(), self::ID],
            ['session.use_strict_mode' => $strict ? '1' : '0'],
        );
    }

    public function testAWaitingRequestReadsWhatTheOneBeforeItHasWritten(): void
    {
        $first = $this->request();
        self::assertSame(1, $first->do('start')['n']);
        $second = $this->request();
        $second->tell('start');
        $name = 'session/' . hash('sha256', self::ID);
        Deadline::until('the request waits', fn (): bool => $this->client->inspect($name)->waiters === 1);
        $first->quietly('add 5');
        self::assertTrue($first->quietly('write'));
        self::assertSame(6, $second->hear()['n']);
        $second->quietly('add 2');
        self::assertTrue($second->quietly('write'));
        self::assertSame(8, $this->request()->do('start')['n']);
    }

    public function testARequestThatWaitsTooLongKeepsItsSessionsIdAndReadsNothing(): void
    {
        $first = $this->request();
        $first->quietly('start');
        $answer = $this->request(timeout: 0.01)->do('start');
        self::assertFalse($answer['result']);
        self::assertNull($answer['n']);
        $said = preg_grep('/the session was in use by others for longer than 0.01 s/', $answer['warnings']);
        self::assertCount(1, $said ?: [], implode("\n", $answer['warnings']));
        $first->quietly('add 5');
        self::assertTrue($first->quietly('write'));
        self::assertSame(6, $this->request()->do('start')['n']);
    }

    public function testAnOpenSessionStaysLockedWhileANewIdIsChecked(): void
    {
        $request = $this->request();
        $request->quietly('start');
        $request->quietly('create-id');
        self::assertSame(1, $this->holders(self::ID));
        $request->quietly('add 1');
        self::assertTrue($request->quietly('regenerate'));
        $id = $request->do('add 1')['id'];
        self::assertSame([0, 1], [$this->holders(self::ID), $this->holders($id)]);
        self::assertTrue($request->quietly('write'));
        self::assertSame(0, $this->holders($id));
    }

    private function holders(string $id): int
    {
        return $this->client->inspect('session/' . hash('sha256', $id))->holders;
    }
}
