<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\LibraryException;
use Lockd\Exception\LockdException;
use Lockd\Exception\RefusedException;
use Lockd\Internal\Deadline;
use Lockd\Internal\Process;
use Lockd\Internal\Quietly;
use Symfony\Component\Process\PhpExecutableFinder;

/**
 * Starts a {@see Holder} when one is needed, and asks it for locks. The holder inherits nothing
 * from this process but the two pipes between them: the connections and the output of a scheduler
 * must end when the scheduler does. Knows nothing of Laravel's events.
 *
 * @internal
 */
final class HolderProcess
{
    /** How long PHP may take to start, in seconds. */
    private const START = 10.0;

    /**
     * Starts the holder and ends at once. So the holder is not a child of this process, which would
     * have to wait for its end, and may be a web server's that never does. The shell gives programs
     * in the background an empty input, unless another is named.
     */
    private const ORPHAN = 'exec 3<&0; "$@" <&3 3<&- &';

    /**
     * @var ?resource what has started the holder, and keeps the pipes open; null: the holder is not
     *     running, as far as is known
     */
    private $process = null;
    /** @var array<int, resource> the pipes: 0 to ask, 1 for the answers */
    private array $pipes = [];
    /** The process that has started the holder. */
    private int $pid = 0;
    private int $lastId = 0;

    public function __construct(private readonly SeparateLocks $locks)
    {
    }

    /**
     * Acquires the lock if it is free, and holds it for that time, also when this process ends.
     *
     * @param string $name of the lock on the server
     * @param int $seconds for how long it is held
     * @return bool false: it is held
     * @throws LockdException
     */
    public function try(string $name, int $seconds): bool
    {
        return $this->locks->attempt($name, fn (): bool => $this->ask($name, $seconds));
    }

    /** @throws LockdException */
    private function ask(string $name, int $seconds): bool
    {
        if ($this->process === null || $this->pid !== Process::id()) {
            // A forked child must not read the answers of its parent's holder.
            $this->start();
        }
        $answer = null;
        try {
            $id = ++$this->lastId;
            $this->tell(['id' => $id, 'name' => bin2hex($name), 'seconds' => $seconds]);
            $answer = $this->hear($id, Deadline::in(self::START + 2 * $this->locks->timeout));
        } finally {
            if ($answer === null) {
                // The holder goes on holding what it has, until its time is over.
                [$this->process, $this->pipes] = [null, []];
            }
        }
        return match ($answer['result'] ?? null) {
            'yes' => true,
            'no' => false,
            'absent' => throw new ConnectException($answer['error'] ?? '', isAbsence: true),
            default => throw new RefusedException('the holder of the lock reports: ' . ($answer['error'] ?? '')),
        };
    }

    private function start(): void
    {
        if (!function_exists('proc_open')) {
            throw new LibraryException('onOneServer() needs proc_open, to start the process that holds the lock');
        }
        $nothing = ['null'];
        $streams = [['pipe', 'r'], ['pipe', 'w'], $nothing];
        foreach (self::openDescriptors() as $descriptor) {
            // In the holder this number is another file, so its copy of ours is closed.
            $streams[$descriptor] = $nothing;
        }
        $command = [(new PhpExecutableFinder())->find(false) ?: PHP_BINARY, __DIR__ . '/hold.php'];
        if (DIRECTORY_SEPARATOR === '/') {
            $command = ['/bin/sh', '-c', self::ORPHAN, 'sh', ...$command];
        }
        $pipes = [];
        $process = Quietly::call(static function () use ($command, $streams, &$pipes) {
            return proc_open($command, $streams, $pipes);
        });
        if ($process === false) {
            throw new LibraryException("cannot start $command[0]: " . Quietly::$warning);
        }
        [$this->process, $this->pid] = [$process, Process::id()];
        /** @var array{resource, resource} $pipes the other streams have none */
        $this->pipes = [$pipes[0], $pipes[1]];
        stream_set_blocking($pipes[1], false);
        if (DIRECTORY_SEPARATOR === '/') {
            self::reap($process);
        }
        $this->tell([
            'url' => $this->locks->url,
            'owner' => $this->locks->owner,
            'timeout' => $this->locks->timeout,
        ]);
    }

    /**
     * Waits for the end of the shell. Not by proc_close, which would close the pipes.
     *
     * @param resource $process
     */
    private static function reap($process): void
    {
        $deadline = Deadline::in(self::START);
        while (proc_get_status($process)['running'] && !$deadline->isOver()) {
            usleep(1000);
        }
    }

    /**
     * The descriptors of this process above its standard streams; none where the system has no list
     * of them.
     *
     * @return list<int>
     */
    private static function openDescriptors(): array
    {
        foreach (['/proc/self/fd', '/dev/fd'] as $directory) {
            $names = Quietly::call(static fn () => scandir($directory)) ?: [];
            // The directory itself was open while it was read, and is not open any more.
            $open = array_filter($names, static fn (string $name): bool => (string) (int) $name === $name && $name > 2
                && Quietly::call(static fn () => lstat("$directory/$name")) !== false);
            if ($names !== []) {
                return array_map(static fn (string $name): int => (int) $name, array_values($open));
            }
        }
        return [];
    }

    /** @param array<string, mixed> $message */
    private function tell(array $message): void
    {
        $line = json_encode($message, JSON_THROW_ON_ERROR) . "\n";
        $pipe = $this->pipes[0];
        if (Quietly::call(static fn () => fwrite($pipe, $line)) !== strlen($line)) {
            [$this->process, $this->pipes] = [null, []];
            throw new ConnectionLostException('the process that holds the locks has ended');
        }
    }

    /** @return array{id: int, result?: string, error?: string} the answer to that question */
    private function hear(int $id, Deadline $deadline): array
    {
        do {
            // PHP may print warnings when it starts, which are no answers.
            $answer = json_decode($this->line($deadline), true);
        } while (!is_array($answer) || ($answer['id'] ?? null) !== $id);
        /** @var array{id: int, result?: string, error?: string} $answer */
        return $answer;
    }

    private function line(Deadline $deadline): string
    {
        $line = '';
        while (!str_ends_with($line, "\n")) {
            if ($deadline->isOver() || feof($this->pipes[1])) {
                throw new ConnectionLostException('the process that holds the locks does not answer');
            }
            [$read, $none] = [[$this->pipes[1]], null];
            Quietly::call(static fn () => stream_select($read, $none, $none, 0, 200_000));
            $line .= (string) fgets($this->pipes[1]);
        }
        return $line;
    }
}
