<?php

declare(strict_types=1);

namespace Lockd\Tests\Session;

use Lockd\Client;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Session\LockingSessionHandler;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;
use RuntimeException;
use SessionHandler;

/**
 * PHP's own sessions, with each request in a process of its own and a handler that does not lock.
 */
final class LockingSessionHandlerTest extends TestCase
{
    private const ID = 'b5e0a1';

    private Server $server;
    private Client $client;

    protected function setUp(): void
    {
        $this->server = new Server();
        $this->client = Client::connect($this->server->tcp());
    }

    /** @param array<string, string> $ini */
    private function request(
        ?string $id = self::ID,
        float $timeout = 60.0,
        string $class = FileHandler::class,
        array $ini = [],
    ): Request {
        $arguments = [$this->server->tcp(), (string) $timeout, $class, $this->server->directory()];
        return new Request([...$arguments, ...(array) $id], $ini);
    }

    private static function nameOf(string $id): string
    {
        return 'session/' . hash('sha256', $id);
    }

    private function isLocked(string $id = self::ID): bool
    {
        return $this->client->inspect(self::nameOf($id))->holders > 0;
    }

    private function untilWaiting(int $waiters): void
    {
        Deadline::until('the requests wait', fn (): bool =>
            $this->client->inspect(self::nameOf(self::ID))->waiters === $waiters);
    }

    public function testASecondRequestWaitsForTheFirst(): void
    {
        $first = $this->request();
        self::assertTrue($first->quietly('start'));
        $second = $this->request();
        $second->tell('start');
        $this->untilWaiting(1);
        $first->quietly('add 5');
        self::assertTrue($first->quietly('write'));
        self::assertSame(5, $second->hear()['n']);
        self::assertTrue($this->isLocked());
        $second->quietly('add 2');
        // PHP writes and closes an open session at the end of its script.
        $second->end();
        self::assertFalse($this->isLocked());
        $third = $this->request();
        self::assertSame(7, $third->do('start')['n']);
    }

    public function testNoRequestOverwritesWhatAnotherHasStored(): void
    {
        $requests = [$this->request(), $this->request(), $this->request(), $this->request()];
        foreach ($requests as $request) {
            $request->tell('count 25');
        }
        $counts = [];
        foreach ($requests as $request) {
            $answer = $request->hear();
            self::assertSame([], $answer['warnings']);
            $counts[] = $answer['result'];
        }
        self::assertSame(100, max($counts));
    }

    public function testRequestsWithDifferentSessionsDoNotWait(): void
    {
        $first = $this->request();
        $first->quietly('start');
        $second = $this->request('another', 0.0);
        self::assertTrue($second->quietly('start'));
    }

    public function testASessionThatStaysInUseIsNotRead(): void
    {
        $first = $this->request();
        $first->quietly('start');
        $first->quietly('add 5');
        $second = $this->request(timeout: 0.01);
        $answer = $second->do('start');
        self::assertFalse($answer['result']);
        self::assertNull($answer['n']);
        self::assertSame('lockd: the session was in use by others for longer than 0.01 s', $answer['warnings'][0]);
        self::assertStringContainsString('Failed to read session data', $answer['warnings'][1]);
        self::assertTrue($first->quietly('write'));
        self::assertSame(5, $this->request(timeout: 0.01)->do('start')['n']);
    }

    public function testASessionIsNotReadWithoutAServer(): void
    {
        $this->server->kill();
        $answer = $this->request()->do('start');
        self::assertFalse($answer['result']);
        self::assertStringContainsString('lockd: the session cannot be locked: cannot connect', $answer['warnings'][0]);
    }

    /** @return array{Request, Request} one that has lost its session's lock, and one that has written since */
    private function lateAndLater(): array
    {
        $late = $this->request();
        $late->quietly('start');
        $late->quietly('add 1');
        $this->server->restart();
        $later = $this->request();
        $later->quietly('start');
        $later->quietly('add 5');
        self::assertTrue($later->quietly('write'));
        return [$late, $later];
    }

    public function testALateRequestDoesNotOverwriteALaterOne(): void
    {
        [$late] = $this->lateAndLater();

        $answer = $late->do('write');
        self::assertSame(
            'lockd: the session is not written, since its lock was lost meanwhile',
            $answer['warnings'][0]
        );
        self::assertSame(5, $late->do('start')['n']);
    }

    /**
     * @dataProvider ends
     * @param string ...$ends what a request does that has lost its session's lock
     */
    public function testARequestThatHasLostTheLockDoesNotDestroyWhatALaterOneHasWritten(string ...$ends): void
    {
        [$late, $later] = $this->lateAndLater();
        $later->quietly('start');

        $answers = array_map($late->do(...), $ends);
        self::assertFalse($answers[0]['result']);
        self::assertStringContainsString('its lock was lost meanwhile', $answers[0]['warnings'][0]);
        $later->quietly('write');
        self::assertSame(5, $this->request()->do('start')['n']);
        $id = end($answers)['id'];
        self::assertContains($id === '' ? null : $this->request($id)->do('start')['n'], [null, 5]);
    }

    /** @return array<string, list<string>> */
    public function ends(): array
    {
        return [
            'destroy' => ['destroy'],
            'a new id, at a login' => ['regenerate 1', 'write'],
        ];
    }

    public function testASessionThatIsNotOpenMayBeDestroyedByAnybody(): void
    {
        $request = $this->request();
        $request->quietly('start');
        $request->quietly('write');
        $handler = new LockingSessionHandler(new FileHandler($this->server->directory()), $this->server->tcp());
        self::assertTrue($handler->destroy(self::ID));
        self::assertNull($this->request()->do('start')['n']);
    }

    public function testAnUnchangedSessionIsNotTouchedWithoutItsLock(): void
    {
        $request = $this->request(class: CapableFileHandler::class);
        $request->quietly('start');
        $request->quietly('write');
        $request->quietly('start');
        $this->server->kill();
        self::assertStringContainsString('not written', $request->do('write')['warnings'][0]);
        self::assertFileDoesNotExist($this->server->directory() . '/touched');
    }

    public function testAnUnchangedSessionIsTouched(): void
    {
        $request = $this->request(class: CapableFileHandler::class);
        $request->quietly('start');
        $request->quietly('add 1');
        $request->quietly('write');
        self::assertFileDoesNotExist($this->server->directory() . '/touched');
        $request->quietly('start');
        $request->quietly('write');
        self::assertFileExists($this->server->directory() . '/touched');
        self::assertFalse($this->isLocked());
    }

    public function testAHandlerWithoutUpdateTimestampWrites(): void
    {
        $request = $this->request();
        $request->quietly('start');
        $request->quietly('add 1');
        $request->quietly('write');
        $request->quietly('start');
        $file = $this->server->directory() . '/session-' . bin2hex(self::ID);
        unlink($file);
        $request->quietly('write');
        self::assertFileExists($file);
    }

    public function testALockEndsWithItsRequest(): void
    {
        $first = $this->request();
        $first->quietly('start');
        $second = $this->request();
        $second->tell('start');
        $this->untilWaiting(1);
        $first->kill();
        self::assertTrue($second->hear()['result']);
    }

    public function testAClosedSessionIsNotLocked(): void
    {
        $request = $this->request();
        self::assertTrue($request->quietly('read-and-close'));
        self::assertFalse($this->isLocked());
        $request->quietly('start');
        self::assertTrue($this->isLocked());
        $request->quietly('abort');
        self::assertFalse($this->isLocked());
        $request->quietly('start');
        self::assertTrue($request->quietly('destroy'));
        self::assertFalse($this->isLocked());
    }

    public function testASessionThatIsResetStaysLocked(): void
    {
        $first = $this->request(timeout: 0.01);
        $first->quietly('start');
        $first->quietly('add 5');
        $second = $this->request();
        $second->tell('start');
        $this->untilWaiting(1);
        self::assertTrue($first->quietly('reset'));
        self::assertSame(3, $first->quietly('add 3'));
        self::assertTrue($first->quietly('write'));
        self::assertSame(3, $second->hear()['n']);
    }

    /** @dataProvider regenerations */
    public function testANewIdIsLockedInPlaceOfTheOld(int $delete, ?int $left): void
    {
        $request = $this->request();
        $request->quietly('start');
        $request->quietly('add 5');
        $answer = $request->do("regenerate $delete");
        self::assertSame([true, 5, []], [$answer['result'], $answer['n'], $answer['warnings']]);
        self::assertNotSame(self::ID, $answer['id']);
        self::assertFalse($this->isLocked());
        self::assertTrue($this->isLocked($answer['id']));
        self::assertTrue($request->quietly('write'));
        self::assertFalse($this->isLocked($answer['id']));
        self::assertSame($left, $this->request()->do('start')['n']);
        self::assertSame(5, $this->request($answer['id'])->do('start')['n']);
    }

    /** @return array<string, array{int, ?int}> */
    public function regenerations(): array
    {
        return ['the old session stays' => [0, 5], 'the old session goes' => [1, null]];
    }

    /** @dataProvider handlers */
    public function testWithStrictModeAnUnknownIdIsReplaced(string $class): void
    {
        $ini = ['session.use_strict_mode' => '1', 'session.save_path' => $this->server->directory()];
        $request = $this->request(class: $class, ini: $ini);
        $answer = $request->do('start');
        self::assertSame([true, []], [$answer['result'], $answer['warnings']]);
        self::assertNotSame(self::ID, $answer['id']);
        self::assertSame($class === CapableFileHandler::class, str_starts_with($answer['id'], 'our'));
        self::assertFalse($this->isLocked());
        self::assertTrue($this->isLocked($answer['id']));
        $request->quietly('add 5');
        self::assertTrue($request->quietly('write'));

        $again = $this->request($answer['id'], class: $class, ini: $ini)->do('start');
        self::assertSame([$answer['id'], 5], [$again['id'], $again['n']]);
    }

    /** @return list<array{class-string}> */
    public function handlers(): array
    {
        return [[FileHandler::class], [CapableFileHandler::class], [SessionHandler::class]];
    }

    public function testCreatesIdsAndRemovesOldSessions(): void
    {
        $request = $this->request(null);
        $answer = $request->do('start');
        self::assertMatchesRegularExpression('/^[\w,-]{22,}$/', $answer['id']);
        self::assertMatchesRegularExpression('/^[\w,-]{22,}$/', $request->quietly('create-id'));
        self::assertTrue($request->quietly('write'));
        self::assertFileExists($this->server->directory() . '/session-' . bin2hex($answer['id']));
        $request->quietly('start');
        self::assertSame(1, $request->quietly('collect'));
    }

    public function testASessionThatIsStillOpenWhenItsScriptExitsIsWritten(): void
    {
        $request = $this->request();
        $request->quietly('start');
        $request->quietly('add 5');
        $request->tell('die');
        $request->end();
        self::assertFalse($this->client->inspect(self::nameOf(self::ID))->orphaned);
        self::assertSame(5, $this->request()->do('start')['n']);
    }

    /** @dataProvider failures */
    public function testTheLockIsReleasedWhenTheHandlerThrows(string $method, string ...$arguments): void
    {
        // PHP does not close the session then, and the process may live on.
        $inner = $this->createStub(CapableFileHandler::class);
        $inner->method($method)->willReturnCallback(function (): never {
            self::assertTrue($this->isLocked());
            throw new RuntimeException('the store is down');
        });
        $handler = new LockingSessionHandler($inner, $this->server->tcp());
        try {
            $handler->read(self::ID);
            $handler->$method(self::ID, ...$arguments);
            self::fail('the exception was lost');
        } catch (RuntimeException $e) {
            self::assertSame('the store is down', $e->getMessage());
        }
        self::assertFalse($this->isLocked());
    }

    /** @return list<list<string>> */
    public function failures(): array
    {
        return [['read'], ['write', 'data'], ['updateTimestamp', 'data'], ['destroy']];
    }

    public function testInvalidSettingsAreRefused(): void
    {
        foreach ([['localhost', 30.0], ['tcp://localhost', -1.0]] as [$url, $timeout]) {
            try {
                new LockingSessionHandler(new FileHandler('/nowhere'), $url, $timeout);
                self::fail('the invalid setting was accepted');
            } catch (InvalidArgumentException $e) {
                self::assertNotSame('', $e->getMessage());
            }
        }
    }
}
