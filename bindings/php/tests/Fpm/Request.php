<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use RuntimeException;

/**
 * A request to a pool of php-fpm, sent by cgi-fcgi like a web server's, and its answer as it
 * arrives.
 */
final class Request
{
    /** How long to wait for the answer, in seconds. */
    private const PATIENCE = 20.0;

    /** @var resource */
    private $process;
    /** @var resource */
    private $answer;
    private string $received = '';
    private int $read = 0;

    /** @param array<string, string> $query */
    public function __construct(string $socket, string $script, array $query)
    {
        $environment = [
            'GATEWAY_INTERFACE' => 'CGI/1.1',
            'QUERY_STRING' => http_build_query($query),
            'REQUEST_METHOD' => 'GET',
            'SCRIPT_FILENAME' => $script,
            'SCRIPT_NAME' => '/' . basename($script),
            'SERVER_PROTOCOL' => 'HTTP/1.1',
        ];
        $streams = [['file', '/dev/null', 'r'], ['pipe', 'w'], ['file', '/dev/null', 'w']];
        $command = [Program::find('cgi-fcgi'), '-bind', '-connect', $socket];
        $process = proc_open($command, $streams, $pipes, null, $environment);
        if ($process === false) {
            throw new RuntimeException("cannot start $command[0]");
        }
        $this->process = $process;
        $this->answer = $pipes[1];
        stream_set_blocking($this->answer, false);
    }

    /** Waits for the next line that begins with `$word` and a space, and returns the rest of it. */
    public function expect(string $word): string
    {
        $end = microtime(true) + self::PATIENCE;
        while (!preg_match("/^$word (.*)\n/m", $this->received, $line, PREG_OFFSET_CAPTURE, $this->read)) {
            if (!$this->receive($end)) {
                throw new RuntimeException("expected \"$word\", but got: " . self::short($this->received));
            }
        }
        $this->read = $line[0][1] + strlen($line[0][0]);
        return $line[1][0];
    }

    /** The whole answer, when it is complete. */
    public function answer(): string
    {
        $end = microtime(true) + self::PATIENCE;
        while ($this->receive($end)) {
            continue;
        }
        if (!feof($this->answer)) {
            throw new RuntimeException('the request does not end; its answer so far: ' . self::short($this->received));
        }
        return $this->received;
    }

    /** Reads more of the answer; false: nothing arrived until `$end`, or the answer is complete. */
    private function receive(float $end): bool
    {
        $read = [$this->answer];
        $none = null;
        $seconds = max(0.0, $end - microtime(true));
        if (!stream_select($read, $none, $none, (int) $seconds, (int) (fmod($seconds, 1.0) * 1e6))) {
            return false;
        }
        $bytes = (string) fread($this->answer, 65536);
        $this->received .= $bytes;
        return $bytes !== '' || !feof($this->answer);
    }

    public static function short(string $text): string
    {
        $text = trim((string) preg_replace('/\s+/', ' ', $text));
        return strlen($text) > 300 ? substr($text, 0, 150) . ' ... ' . substr($text, -150) : $text;
    }

    /** Disconnects without waiting for the answer, like an impatient user's browser. */
    public function hangUp(): void
    {
        proc_terminate($this->process, SIGKILL);
    }

    public function __destruct()
    {
        $this->hangUp();
        fclose($this->answer);
        proc_close($this->process);
    }
}
