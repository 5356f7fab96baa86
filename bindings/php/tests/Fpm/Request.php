<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use RuntimeException;

/** A request to a pool of php-fpm, made by cgi-fcgi as a web server would, and its answer as it comes. */
final class Request
{
    /** Seconds. */
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

    /** What follows `$word` and a space in the next line that begins so. */
    public function expect(string $word): string
    {
        $end = microtime(true) + self::PATIENCE;
        while (!preg_match("/^$word (.*)\n/m", $this->received, $line, PREG_OFFSET_CAPTURE, $this->read)) {
            if (!$this->receive($end)) {
                throw new RuntimeException("it has not said \"$word\", but: " . self::short($this->received));
            }
        }
        $this->read = $line[0][1] + strlen($line[0][0]);
        return $line[1][0];
    }

    /** All of the answer, once it has ended. */
    public function answer(): string
    {
        $end = microtime(true) + self::PATIENCE;
        while ($this->receive($end)) {
            continue;
        }
        if (!feof($this->answer)) {
            throw new RuntimeException('the request does not end; it has said: ' . self::short($this->received));
        }
        return $this->received;
    }

    /** False: there was nothing until `$end`, or nothing will come any more. */
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

    /** Goes away without waiting for the answer, as a browser whose user has lost patience. */
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
