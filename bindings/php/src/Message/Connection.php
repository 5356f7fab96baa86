<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Internal\Deadline;
use Lockd\Internal\Endable;
use Lockd\Internal\Process;
use Lockd\Internal\Quietly;

/**
 * Frames of the `message` protocol over a plain stream, which the engine closes however a script ends. Sends requests
 * and keeps replies until they are asked for; knows nothing of locks. After anything that puts the stream in doubt
 * the connection is ended, and every later call says so.
 *
 * @internal
 */
final class Connection implements Endable
{
    /** Bytes. Replies may be long, but a length beyond this is no length. */
    private const FRAME_MAX = 1 << 28;

    /** What a server may be that has not answered anything yet. */
    private const UNANSWERED = 'it hangs, or speaks another protocol there than `message`, which clients need '
        . '(port 20934 unless the server says otherwise; not that of lockd, 2626, or of glockd, 9999)';

    private const JSON = JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION;

    /** @var ?resource null: ended */
    private $stream;
    private readonly int $pid;
    private string $received = '';
    private bool $hasMessage = false;
    private int $lastId = 0;
    /** @var array<int, ?Result> what was asked, and the message that answers it once that is there */
    private array $asked = [];
    /** @var array<int, float> when each of those requests was sent */
    private array $sent = [];
    private string $end = 'the connection was closed';
    private float $heard;
    /** When the last one of all requests was sent that the server has answered. */
    private float $proven;
    /** How long that request proves that the server keeps this client's locks, in seconds. */
    private float $proofLasts = INF;

    /** @param resource $stream */
    private function __construct($stream, public readonly Address $address, public readonly float $timeout)
    {
        stream_set_blocking($stream, false);
        $this->stream = $stream;
        $this->pid = Process::id();
        $this->heard = $this->proven = Deadline::now();
        Process::opened($this);
    }

    /**
     * @param float $within for connecting, in seconds
     * @param float $timeout for every answer that the server gives at once, in seconds
     * @throws ConnectException
     */
    public static function open(Address $address, float $within, float $timeout): self
    {
        self::mustBeLimited($timeout);
        if ($address->isTls) {
            throw new InvalidArgumentException("$address->text: TLS is spoken by liblockd alone, not by PHP's streams");
        }
        $stream = (new Dialer())->connect($address, $within);
        return new self($stream, $address, $timeout);
    }

    /** @throws InvalidArgumentException for a time limit that is none */
    public static function mustBeLimited(float $timeout): void
    {
        if (!($timeout > 0.0) || is_infinite($timeout)) {
            throw new InvalidArgumentException('the time limit of a connection is a number of seconds above 0');
        }
    }

    /** Has the kernel find out that the server's machine is gone; false if it cannot. */
    public function keepAlive(int $deadPeerTimeout): bool
    {
        if (!$this->address->isTcp) {
            // The other end of a Unix socket cannot go unnoticed.
            return true;
        }
        $this->proofLasts = Keepalive::silenceMax($deadPeerTimeout);
        return Keepalive::set($this->stream(), $deadPeerTimeout);
    }

    /**
     * Sends a request, whose answer is to be asked for with {@see answer()}.
     *
     * @param array<string, mixed> $parameters
     * @return int the request's id
     */
    public function send(string $command, array $parameters): int
    {
        $id = ++$this->lastId;
        $request = ['command' => $command, 'parameters' => (object) $parameters, 'id' => $id];
        $body = self::encode($request);
        if ($body === false) {
            $problem = json_last_error_msg();
            throw new InvalidArgumentException("the parameters of \"$command\" cannot be written as JSON: $problem");
        }
        // Before it is sent: whoever reads next may read the answer.
        $this->asked[$id] = null;
        $this->sent[$id] = Deadline::now();
        $this->write(pack('N', strlen($body)) . $body);
        return $id;
    }

    /**
     * With its numbers as they are, whatever PHP is told to make of them.
     *
     * @param array<string, mixed> $request
     */
    private static function encode(array $request): string|false
    {
        $precision = ini_get('serialize_precision');
        if ($precision === '-1' || !function_exists('ini_set')) {
            return json_encode($request, self::JSON);
        }
        ini_set('serialize_precision', '-1');
        try {
            return json_encode($request, self::JSON);
        } finally {
            ini_set('serialize_precision', (string) $precision);
        }
    }

    /**
     * The result of a request that the server answers at once.
     *
     * @param array<string, mixed> $parameters
     */
    public function ask(string $command, array $parameters): Result
    {
        return $this->await($this->send($command, $parameters))->object('result');
    }

    /**
     * The message that answers a request, which is due.
     *
     * @param ?float $within in seconds; null: what holds for every answer
     */
    public function await(int $id, ?float $within = null): Result
    {
        $within ??= $this->timeout;
        $deadline = Deadline::in($within);
        while (true) {
            $answer = $this->answer($id);
            if ($answer !== null) {
                return $answer;
            }
            if ($deadline->isOver()) {
                $hint = $this->hasMessage ? '' : ': ' . self::UNANSWERED;
                throw $this->lose("the server has not answered within $within s$hint");
            }
            $this->listen($deadline->remaining());
        }
    }

    /** The message that answers a request, once, if it is there; null: not yet. Of a connection that stands. */
    public function answer(int $id): ?Result
    {
        // An answer that came before the end is none any more: a signal's handler may have ended the connection.
        $this->stream();
        $answer = $this->asked[$id] ?? null;
        if ($answer !== null) {
            $this->forget($id);
        }
        return $answer;
    }

    /** An answer that comes is of no interest any more. */
    public function forget(int $id): void
    {
        unset($this->asked[$id], $this->sent[$id]);
    }

    /**
     * That the connection is alive now, so that what the server has granted on it is still granted. To be called
     * after the grant has been read, since a process may be stopped for any time before it reads: by then the
     * connection may have ended, and the lock may be another client's.
     *
     * The end of the connection comes behind the grant, so all that has come is read. A network that is cut brings no
     * end, and PHP cannot ask the kernel for how long the server has been silent: so a request must have been answered
     * that was sent a short time ago, and if there is none, this sends one and awaits its answer.
     *
     * @throws ConnectionLostException
     */
    public function mustBeAlive(): void
    {
        $this->readAll();
        while (Deadline::now() - $this->proven >= $this->proofLasts) {
            $this->ask('ping', []);
            $this->readAll();
        }
    }

    /** How long nothing has been heard, in seconds. */
    public function silence(): float
    {
        return Deadline::now() - $this->heard;
    }

    /** Waits for something to come, for up to `$seconds` or until a signal comes, and takes it in. */
    public function listen(float $seconds): void
    {
        $this->awaitStream(true, $seconds);
        $this->read();
    }

    /** Takes in all that has come, without waiting. */
    private function readAll(): void
    {
        while ($this->read()) {
            continue;
        }
    }

    /** Takes in some of what has come, without waiting; false: nothing has. */
    private function read(): bool
    {
        $stream = $this->stream();
        $bytes = Quietly::call(static fn () => fread($stream, 65536));
        if ($bytes === false || ($bytes === '' && feof($stream))) {
            throw $this->lose('the server has ended the connection');
        }
        if ($bytes === '') {
            return false;
        }
        $this->heard = Deadline::now();
        $this->received .= $bytes;
        $this->takeFrames();
        return true;
    }

    /** Whether the connection stands, as far as can be known without asking. */
    public function stands(): bool
    {
        if ($this->stream === null || $this->pid !== Process::id()) {
            return false;
        }
        try {
            $this->readAll();
            return true;
        } catch (ConnectionLostException) {
            return false;
        }
    }

    public function end(): void
    {
        if ($this->pid !== Process::id()) {
            $this->abandon();
            return;
        }
        if (is_resource($this->stream)) {
            // Its end, and not only this descriptor's: processes that were started meanwhile have inherited it.
            $stream = $this->stream;
            Quietly::call(static fn () =>
                function_exists('stream_socket_shutdown') && stream_socket_shutdown($stream, STREAM_SHUT_RDWR));
        }
        $this->abandon();
    }

    public function abandon(): void
    {
        // When a script ends, PHP may have closed it before.
        if (is_resource($this->stream)) {
            $stream = $this->stream;
            Quietly::call(static fn () => fclose($stream));
        }
        $this->stream = null;
        $this->asked = $this->sent = [];
        Process::closed($this);
    }

    public function __destruct()
    {
        $this->end();
    }

    /** @param array<mixed> $data */
    public function __unserialize(array $data): void
    {
        throw new InvalidArgumentException('a connection cannot be made of text');
    }

    /** Ends it, since it cannot be relied on any more. */
    public function lose(string $reason): ConnectionLostException
    {
        $this->end = $reason;
        $this->end();
        return new ConnectionLostException($this->address->text . ": $reason");
    }

    /** @return resource */
    private function stream()
    {
        if ($this->pid !== Process::id()) {
            throw new ForkedException('a connection of the parent process: a child has to open one of its own');
        }
        if ($this->stream === null) {
            throw new ConnectionLostException($this->address->text . ": $this->end");
        }
        return $this->stream;
    }

    private function write(string $bytes): void
    {
        $stream = $this->stream();
        $deadline = Deadline::in($this->timeout);
        while (true) {
            $written = Quietly::call(static fn () => fwrite($stream, $bytes));
            if ($written === false) {
                throw $this->lose('the server has ended the connection');
            }
            $bytes = substr($bytes, $written);
            if ($bytes === '') {
                return;
            }
            if ($deadline->isOver()) {
                throw $this->lose("the server has not read what it was sent within $this->timeout s");
            }
            $this->awaitStream(false, $deadline->remaining());
        }
    }

    private function awaitStream(bool $toRead, float $seconds): void
    {
        $stream = $this->stream();
        $ready = Quietly::call(static function () use ($stream, $toRead, $seconds): int|false {
            [$read, $write, $none] = $toRead ? [[$stream], null, null] : [null, [$stream], null];
            $microseconds = (int) ceil(min($seconds, 3600.0) * 1e6);
            return stream_select($read, $write, $none, intdiv($microseconds, 1_000_000), $microseconds % 1_000_000);
        });
        if ($ready === false) {
            // A signal, or a descriptor that is too high for select: then this becomes a slow loop, not a hot one.
            usleep(1000);
        }
    }

    private function takeFrames(): void
    {
        $at = 0;
        while (strlen($this->received) - $at >= 4) {
            /** @var array{1: int} $header */
            $header = unpack('N', $this->received, $at);
            if ($header[1] > self::FRAME_MAX) {
                $begins = $this->hasMessage ? '' : substr($this->received, $at);
                throw $this->lose(self::spokenBy($begins)
                    ?? "what the server sends is no message: a length of $header[1]");
            }
            if (strlen($this->received) - $at - 4 < $header[1]) {
                break;
            }
            $this->hasMessage = true;
            $this->take(substr($this->received, $at + 4, $header[1]));
            $at += 4 + $header[1];
        }
        $this->received = substr($this->received, $at);
    }

    /** What a server speaks that has begun with this, and what to do then; null if that is nothing known. */
    private static function spokenBy(string $begins): ?string
    {
        $wanted = 'clients need a port where lockd speaks `message`, 20934 unless it is told another';
        $line = addcslashes(substr(strtok($begins, "\r\n") ?: '', 0, 160), "\0..\37\"\\\177..\377");
        return match (true) {
            preg_match('#^[\x15\x16]\x03#', $begins) === 1 =>
                'it speaks TLS there, which is for liblockd alone: connect to tls:// by it, or to a listener without',
            str_starts_with($begins, 'HTTP/1') => "it speaks HTTP there (\"$line\"): $wanted",
            preg_match('#^[\x20-\x7e\t\r\n]{4}#', $begins) === 1 =>
                "it speaks a text protocol there (\"$line\"): $wanted",
            default => null,
        };
    }

    private function take(string $body): void
    {
        $decoded = json_decode($body, true);
        if (!is_array($decoded)) {
            throw $this->lose('what the server sends is no message');
        }
        $message = new Result($decoded);
        $id = $message->integer('id');
        if (isset($decoded['error']) && !isset($decoded['id'])) {
            // It belongs to no request: the server turns this client away, or could not read what it was sent.
            throw $this->lose($message->text('error') ?? 'the server reports an error');
        }
        if ($id !== null && array_key_exists($id, $this->asked)) {
            $this->asked[$id] = $message;
            $this->proven = max($this->proven, $this->sent[$id]);
        }
    }
}
