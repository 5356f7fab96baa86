<?php

declare(strict_types=1);

namespace Lockd\Tests\Session;

use Lockd\Tests\Support\Deadline;
use PHPUnit\Framework\Assert;

/** A request in a process of its own, which carries out commands. */
final class Request
{
    /** @var resource */
    private $process;
    /** @var array<int, resource> */
    private array $pipes;

    /**
     * @param list<string> $arguments of session-request.php
     * @param array<string, string> $ini
     */
    public function __construct(array $arguments, array $ini = [])
    {
        $ini += ['session.use_cookies' => '0', 'session.cache_limiter' => '', 'session.gc_probability' => '0'];
        $command = [PHP_BINARY];
        foreach ($ini as $key => $value) {
            array_push($command, '-d', "$key=$value");
        }
        $streams = [['pipe', 'r'], ['pipe', 'w'], STDERR];
        $process = proc_open([...$command, __DIR__ . '/session-request.php', ...$arguments], $streams, $pipes);
        Assert::assertIsResource($process);
        $this->process = $process;
        $this->pipes = $pipes;
    }

    /** Sends a command and does not wait for the answer. */
    public function tell(string $command): void
    {
        fwrite($this->pipes[0], "$command\n");
    }

    /** @return array{result: mixed, n: ?int, id: string, warnings: list<string>} the answer */
    public function hear(): array
    {
        stream_set_timeout($this->pipes[1], 60);
        $answer = json_decode((string) fgets($this->pipes[1]), true);
        Assert::assertIsArray($answer, 'the request gave no answer');
        return $answer;
    }

    /** @return array{result: mixed, n: ?int, id: string, warnings: list<string>} the answer */
    public function do(string $command): array
    {
        $this->tell($command);
        return $this->hear();
    }

    /** Carries out a command that must cause no warnings. */
    public function quietly(string $command): mixed
    {
        $answer = $this->do($command);
        Assert::assertSame([], $answer['warnings']);
        return $answer['result'];
    }

    public function end(): void
    {
        fclose($this->pipes[0]);
        Deadline::until('the request ends', fn (): bool => !proc_get_status($this->process)['running']);
    }

    public function kill(): void
    {
        proc_terminate($this->process, SIGKILL);
        proc_close($this->process);
    }

    public function __destruct()
    {
        if (is_resource($this->process)) {
            $this->kill();
        }
    }
}
