<?php

/**
 * Uses the package in every way, in a PHP that lacks functions; itself it calls none but those that
 * no line of the package calls. Prints `works`, or the exception.
 *
 *     php -d disable_functions=… disabled-functions.php CLASSES TCP UNIX
 */

declare(strict_types=1);

use Lockd\Client;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Message\MessageClient;
use Lockd\Session\LockingSessionHandler;
use Lockd\SessionState;

$classes = require $argv[1];
spl_autoload_register(static function (string $class) use ($classes): void {
    if (isset($classes[$class])) {
        require $classes[$class];
    }
});
$sessions = new class implements SessionHandlerInterface {
    public function open(string $path, string $name): bool
    {
        return true;
    }

    public function read(string $id): string
    {
        return '';
    }

    public function write(string $id, string $data): bool
    {
        return true;
    }

    public function close(): bool
    {
        return true;
    }

    public function destroy(string $id): bool
    {
        return true;
    }

    public function gc(int $max_lifetime): int
    {
        return 0;
    }
};
$must = static fn (bool $holds, string $what): mixed => $holds ?: throw new LogicException($what);

try {
    foreach ([Client::connect(...), Client::connectByFfi(...)] as $connect) {
        [$ours, $theirs] = [$connect($argv[2], 'ours'), $connect($argv[3])];
        $lock = $ours->acquire("bytes \xff", 1.0);
        $must($lock?->isHeld() === true && $lock->token() > 0 && !$lock->orphaned(), 'a free lock');
        $must($theirs->acquire("bytes \xff", 0.01) === null, 'a busy lock');
        try {
            $second = $ours->acquire("bytes \xff");
            $must(false, 'the same lock twice');
        } catch (AlreadyHeldException) {
            $lock->share();
        }
        $must($theirs->acquire("bytes \xff", 0.0, true)?->release() === true, 'a shared lock');
        $must($lock->makeExclusive(1.0) && $lock->convert(false, 0.0, 4), 'conversions');
        foreach ($theirs->list('bytes') as $listed) {
            $must($listed->limit === 4, 'a listed lock');
        }
        $must($theirs->inspect("bytes \xff")->holders === 1, 'a look at a lock');
        $must($theirs->synchronized('other', static fn (): object => new stdClass()) !== null, 'a call under a lock');
        if ($theirs->acquire('not kept')) {
            $must(!$ours->inspect('not kept')->isHeld(), 'a lock that is not kept');
        }
        $must($ours->stands() && $lock->release(), 'a release');
        $ours->close();
    }
    foreach ([Client::connectAndAcquire(...), Client::connectAndAcquireByFfi(...)] as $patient) {
        $must($patient($argv[2], 'patient', 5.0)?->release() === true, 'a lock and its connection');
        try {
            $patient('tcp://localhost:1', 'patient', 0.05);
            $must(false, 'a lock of no server');
        } catch (ConnectException $e) {
            $must($e->isAbsence, $e->getMessage());
        }
    }
    $commands = MessageClient::connect($argv[2]);
    $must($commands->rpc('ping') !== null, 'a command');
    // With a second place, where nothing listens.
    $resuming = Client::connect("$argv[2],127.0.0.1:1", 'resuming', resume: true);
    $lock = $resuming->acquire("resumed \xff", atMost: 4);
    $must($resuming->isResumable() && $lock?->isHeld() === true, 'a lock of a session that resumes');
    // The server ends the connection, and then the session, when it is asked to resume it.
    $must($commands->rpc('kick', ['name' => 'resuming'])['status'] === 'ok', 'a kick');
    $must($lock->waitCertain(8.0) === SessionState::Lost && !$lock->isHeld(), 'a session that was ended');
    foreach ([new LockingSessionHandler($sessions, $argv[2], 0.01)] as $handler) {
        $id = $handler->create_sid();
        $must($handler->read($id) === '' && $handler->write($id, ''), 'a session');
        $must((new LockingSessionHandler($sessions, $argv[2], 0.01))->read($id) === false, 'a session in use');
        $handler->close();
    }
    echo 'works';
} catch (Throwable $e) {
    echo $e::class, ': ', $e->getMessage();
}
