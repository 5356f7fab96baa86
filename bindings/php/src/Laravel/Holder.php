<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Lockd\Client;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\LockdException;
use Lockd\Exception\TimeoutException;
use Lockd\Internal\ClientSource;
use Lockd\Internal\Deadline;
use Lockd\Internal\Quietly;
use Lockd\Lock;
use Lockd\SessionState;

/**
 * A process that holds locks for a scheduler which may end before the locks must be free. It is
 * asked over its standard streams, in lines of JSON. It ends by itself when the scheduler has ended
 * and the time of each lock is over, or its connection has ended. Started by {@see HolderProcess}.
 *
 * @internal
 */
final class Holder
{
    /** The longest pause between two looks at the time, in seconds. */
    private const PAUSE = 60.0;

    /**
     * The longest pause between two looks at the connections when there are no more questions, or if
     * their sessions resume, in seconds.
     */
    private const PAUSE_ALONE = 1.0;

    /** The same while one of the sessions is in doubt. */
    private const PAUSE_IN_DOUBT = 0.1;

    private ?ClientSource $source = null;
    /** @var array<array-key, array{Lock, Deadline, Client}> the locks, until when they are held, by name */
    private array $held = [];

    /**
     * @param resource $questions
     * @param resource $answers
     */
    public function __construct(private $questions, private $answers)
    {
    }

    public function run(): void
    {
        self::detach();
        while ($this->await()) {
            $this->releaseWhatIsOver();
        }
        $this->forgetWhatIsLost();
        while ($this->held !== []) {
            usleep(max(0, (int) ceil(1e6 * min(self::PAUSE_ALONE, $this->nextLook()))));
            $this->releaseWhatIsOver();
            $this->forgetWhatIsLost();
        }
    }

    /** Makes sure that what ends the scheduler does not end this process. */
    private static function detach(): void
    {
        if (function_exists('posix_setsid')) {
            posix_setsid();
        }
        if (function_exists('pcntl_signal')) {
            foreach ([SIGHUP, SIGINT, SIGQUIT, SIGPIPE] as $signal) {
                pcntl_signal($signal, SIG_IGN);
            }
        }
        // The directory of the application may be replaced while this process runs.
        chdir('/');
    }

    /**
     * Waits for a question until the time of a lock is over, and answers it; false: there will be no
     * more.
     */
    private function await(): bool
    {
        // A signal ends it early.
        [$read, $none] = [[$this->questions], null];
        $microseconds = (int) ceil(1e6 * $this->nextLook());
        $seconds = intdiv($microseconds, 1_000_000);
        $ready = Quietly::call(static fn () => stream_select($read, $none, $none, $seconds, $microseconds % 1_000_000));
        if (!is_int($ready) || $ready === 0) {
            return true;
        }
        $line = fgets($this->questions);
        if ($line === false) {
            return false;
        }
        $question = json_decode($line, true);
        /** @var array{url?: string, owner?: ?string, timeout?: int|float, id?: int, name?: string, seconds?: int} */
        $question = is_array($question) ? $question : [];
        if (isset($question['url'])) {
            $timeout = (float) ($question['timeout'] ?? 5.0);
            $this->source = new ClientSource($question['url'], $question['owner'] ?? null, $timeout);
            return true;
        }
        // The line is not complete if the scheduler was killed while it wrote it.
        if (isset($question['id'], $question['name'], $question['seconds'])) {
            $answer = $this->answer((string) hex2bin($question['name']), (float) $question['seconds']);
            $line = (string) json_encode(['id' => $question['id']] + $answer, JSON_INVALID_UTF8_SUBSTITUTE) . "\n";
            // Nobody listens if the scheduler has ended meanwhile.
            Quietly::call(fn () => fwrite($this->answers, $line));
        }
        return true;
    }

    /** @return array<string, string> */
    private function answer(string $name, float $seconds): array
    {
        try {
            $client = $this->source?->client();
            $lock = $client?->acquire($name, 0.0);
            if ($client === null || $lock === null) {
                return ['result' => 'no'];
            }
            $this->held[$name] = [$lock, Deadline::in($seconds), $client];
            return ['result' => 'yes'];
        } catch (AlreadyHeldException) {
            return ['result' => 'no'];
        } catch (ConnectException | ConnectionLostException | DoubtException | TimeoutException $e) {
            return ['result' => 'absent', 'error' => $e->getMessage()];
        } catch (LockdException $e) {
            return ['result' => 'error', 'error' => $e->getMessage()];
        }
    }

    private function releaseWhatIsOver(): void
    {
        foreach ($this->held as $name => [$lock, $end]) {
            if ($end->isOver()) {
                unset($this->held[$name]);
                try {
                    $lock->release();
                } catch (LockdException) {
                    // It was lost, and need not be released.
                }
            }
        }
    }

    /** So that a process whose server is gone does not stay for locks that it does not hold. */
    private function forgetWhatIsLost(): void
    {
        foreach ($this->held as $name => [$lock, , $client]) {
            // With several servers a client has several connections. A lock is forgotten, and so
            // released, only if its own is lost.
            if ($client->isSpent() && !$lock->isHeld()) {
                unset($this->held[$name]);
            }
        }
    }

    /**
     * Looks after the sessions, and tells in how many seconds the next look is due, at the time and
     * at them.
     */
    private function nextLook(): float
    {
        $pause = self::PAUSE;
        foreach ($this->held as [, $end, $client]) {
            $pause = min($pause, $end->remaining());
            if ($client->isResumable()) {
                $isInDoubt = $client->state() === SessionState::InDoubt;
                $pause = min($pause, $isInDoubt ? self::PAUSE_IN_DOUBT : self::PAUSE_ALONE);
            }
        }
        return $pause;
    }
}
