<?php

declare(strict_types=1);

namespace Lockd\Message;

use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\RefusedException;
use Lockd\Internal\Deadline;
use Lockd\Internal\Endable;
use Lockd\Internal\Process;
use Lockd\Internal\Quietly;
use Lockd\Internal\Signals;

/**
 * Frames of the `message` protocol over a plain stream, which PHP closes however a script ends.
 * Sends requests and keeps replies until the caller fetches them. Knows nothing of locks. After
 * anything that puts the state of the stream in doubt, the connection is ended, and every later
 * call throws.
 *
 * @internal
 */
final class Connection implements Endable
{
    /**
     * In bytes. Replies may be long, but a greater length means that the peer does not speak
     * `message`.
     */
    private const FRAME_MAX = 1 << 28;

    /**
     * The longest time, in seconds, for which a signal handler is deferred if its signal comes just
     * before a wait.
     */
    private const SLICE = 0.25;

    /** What may be wrong with a server that has not answered anything yet. */
    public const UNANSWERED = ': it hangs, or speaks another protocol there than `message`, which clients need '
        . '(port 20934 unless the server says otherwise; not that of lockd, 2626, or of glockd, 9999)';

    private const JSON = JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION;

    /** @var ?resource null: the connection has ended */
    private $stream;
    private readonly int $pid;
    private string $received = '';
    private bool $hasMessage = false;
    private bool $speaksMessage = true;
    private int $lastId = 0;
    /** @var array<int, ?Result> the reply to each request, by id; null: not there yet */
    private array $asked = [];
    /** @var array<int, float> when each of those requests was sent, in seconds */
    private array $sent = [];
    /** Whether {@see end()} leaves the connection to the processes that have inherited it. */
    private bool $isForChildren = false;
    private string $end = 'the connection was closed';
    private float $heard;
    /** When the latest request that the server has answered was sent, in seconds. */
    private float $proven;
    /** For how long after that the server certainly keeps this client's locks, in seconds. */
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
     * @param float $timeout for each answer that the server gives at once, in seconds
     * @throws ConnectException
     */
    public static function open(Address $address, float $within, float $timeout): self
    {
        self::mustBeLimited($timeout);
        if ($address->isTls) {
            throw new InvalidArgumentException(
                "$address->text: only liblockd (connectByFfi) speaks TLS, not PHP's streams"
            );
        }
        $stream = (new Dialer())->connect($address, $within);
        return new self($stream, $address, $timeout);
    }

    /**
     * @param string $what the name of the time limit for the message
     * @throws InvalidArgumentException for a time limit that is not finite, or not above 0
     */
    public static function mustBeLimited(float $timeout, string $what = 'the time limit of a connection'): void
    {
        if (!($timeout > 0.0) || is_infinite($timeout)) {
            throw new InvalidArgumentException("$what is a number of seconds above 0");
        }
    }

    /** Makes the kernel notice when the server's machine is gone; false if it cannot. */
    public function keepAlive(int $deadPeerTimeout): bool
    {
        if (!$this->address->isTcp) {
            // Both ends of a Unix socket are on this machine: the kernel always reports its end.
            return true;
        }
        $this->proofLasts = Keepalive::silenceMax($deadPeerTimeout);
        return Keepalive::set($this->stream(), $deadPeerTimeout);
    }

    /**
     * Sends a request. Its answer is fetched with {@see answer()}.
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
        // Before it is sent, because a read may take in the answer at once.
        $this->asked[$id] = null;
        $this->sent[$id] = Deadline::now();
        $this->write(pack('N', strlen($body)) . $body);
        return $id;
    }

    /**
     * Encodes with numbers at full precision, whatever PHP's `serialize_precision` says.
     *
     * @param array<string, mixed> $request
     */
    private static function encode(array $request): string|false
    {
        $precision = function_exists('ini_get') ? ini_get('serialize_precision') : '-1';
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
     * Waits for the message that answers a request which the server answers at once.
     *
     * @param ?float $within in seconds; null: the connection's time limit
     * @param bool $dispatches whether signal handlers run meanwhile; one that throws ends the wait
     */
    public function await(int $id, ?float $within = null, bool $dispatches = false): Result
    {
        $within ??= $this->timeout;
        $deadline = Deadline::in($within);
        while (true) {
            $answer = $this->answer($id);
            if ($answer !== null) {
                return $answer;
            }
            if ($deadline->isOver()) {
                $hint = $this->hasMessage ? '' : self::UNANSWERED;
                throw $this->lose('the server has not answered within ' . Deadline::text($within) . " s$hint");
            }
            if ($dispatches) {
                Signals::dispatch();
            }
            $this->listen($dispatches ? min(self::SLICE, $deadline->remaining()) : $deadline->remaining());
        }
    }

    /**
     * The message that answers a request, returned once; null: it is not there yet. Throws if the
     * connection has ended.
     */
    public function answer(int $id): ?Result
    {
        // Throws if a signal handler has ended the connection: an answer that came before no longer
        // counts.
        $this->stream();
        $answer = $this->asked[$id] ?? null;
        if ($answer !== null) {
            $this->forget($id);
        }
        return $answer;
    }

    /** Drops the answer to this request when it comes. */
    public function forget(int $id): void
    {
        unset($this->asked[$id], $this->sent[$id]);
    }

    /**
     * Checks that the connection is alive now, so that what the server has granted on it is still
     * granted. Call it after the grant has been read: a process may be stopped for any time before
     * it reads. By then the connection may have ended, and another client may hold the lock.
     *
     * The end of a connection arrives after the grant, so this reads all that has arrived. If the
     * network is cut, no end arrives, and PHP cannot ask the kernel for how long the server has
     * been silent. So the server must have answered a request that was sent only a short time ago.
     * If there is no such request, this sends one and waits for the answer.
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

    /** How long the server has sent nothing, in seconds. */
    public function silence(): float
    {
        return Deadline::now() - $this->heard;
    }

    /** Waits until bytes or a signal arrive, for at most `$seconds`, and reads what has arrived. */
    public function listen(float $seconds): void
    {
        $this->awaitStream(true, $seconds);
        $this->read();
    }

    /** Reads all that has arrived, without waiting. */
    private function readAll(): void
    {
        while ($this->read()) {
            continue;
        }
    }

    /** Reads some of what has arrived, without waiting; false: nothing has arrived. */
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
        $this->decodeFrames();
        return true;
    }

    /** False if what the server has sent shows that it does not speak `message`. */
    public function speaksMessage(): bool
    {
        return $this->speaksMessage;
    }

    /** Whether the connection is alive, as far as this can be known without asking the server. */
    public function isAlive(): bool
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

    /**
     * From now on {@see end()} closes only this process's copy. The connection, and the locks on
     * it, then last as long as a program that this process has started and that has inherited it.
     *
     * @throws RefusedException programs do not inherit the connection: they could not hold its locks
     */
    public function keepForChildren(): void
    {
        if (!Inheritance::isSure($this->stream())) {
            throw new RefusedException('programs that this PHP starts do not inherit its connections');
        }
        $this->isForChildren = true;
    }

    public function end(): void
    {
        if ($this->isForChildren || $this->pid !== Process::id()) {
            $this->abandon();
            return;
        }
        if (is_resource($this->stream)) {
            // Shut the connection down, not only close this descriptor: programs started meanwhile
            // have inherited copies.
            $stream = $this->stream;
            Quietly::call(static fn () =>
                function_exists('stream_socket_shutdown') && stream_socket_shutdown($stream, STREAM_SHUT_RDWR));
        }
        $this->abandon();
    }

    public function abandon(): void
    {
        // At the end of a script PHP may have closed the stream already.
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
        throw new InvalidArgumentException('a connection cannot be unserialized');
    }

    /** Ends a connection that can no longer be relied on, and returns the exception to throw. */
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
            throw new ForkedException('this connection is the parent process\'s: a forked child must open its own');
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
                $limit = Deadline::text($this->timeout);
                throw $this->lose("the server has not read what it was sent within $limit s");
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
            // A signal, or a descriptor that is too high for select(): sleep, so that the caller's
            // loop is not a busy one.
            usleep(1000);
        }
    }

    private function decodeFrames(): void
    {
        $at = 0;
        while (strlen($this->received) - $at >= 4) {
            /** @var array{1: int} $header */
            $header = unpack('N', $this->received, $at);
            if ($header[1] > self::FRAME_MAX) {
                $begins = $this->hasMessage ? '' : substr($this->received, $at);
                $this->speaksMessage = false;
                throw $this->lose(self::protocolOf($begins)
                    ?? "what the server sends is no message: its length would be $header[1]");
            }
            if (strlen($this->received) - $at - 4 < $header[1]) {
                break;
            }
            $this->hasMessage = true;
            $this->handle(substr($this->received, $at + 4, $header[1]));
            $at += 4 + $header[1];
        }
        $this->received = substr($this->received, $at);
    }

    /**
     * Which other protocol a server speaks whose first bytes are these, and what to do; null:
     * unknown.
     */
    private static function protocolOf(string $begins): ?string
    {
        $wanted = 'clients need a port where lockd speaks `message` (20934 unless the server is told another)';
        $line = addcslashes(substr(strtok($begins, "\r\n") ?: '', 0, 160), "\0..\37\"\\\177..\377");
        return match (true) {
            preg_match('#^[\x15\x16]\x03#', $begins) === 1 =>
                'it speaks TLS there, which only liblockd does: use connectByFfi with tls://, or a port without TLS',
            str_starts_with($begins, 'HTTP/1') => "it speaks HTTP there (\"$line\"): $wanted",
            preg_match('#^[\x20-\x7e\t\r\n]{4}#', $begins) === 1 =>
                "it speaks a text protocol there (\"$line\"): $wanted",
            default => null,
        };
    }

    private function handle(string $body): void
    {
        $decoded = json_decode($body, true);
        if (!is_array($decoded)) {
            $this->speaksMessage = false;
            throw $this->lose('what the server sends is no message in JSON');
        }
        $message = new Result($decoded);
        $id = $message->integer('id');
        if (isset($decoded['error']) && !isset($decoded['id'])) {
            // It belongs to no request: the server refuses this client, or could not decode what it
            // was sent.
            throw $this->lose($message->text('error') ?? 'the server reports an error');
        }
        if ($id !== null && array_key_exists($id, $this->asked)) {
            $this->asked[$id] = $message;
            $this->proven = max($this->proven, $this->sent[$id]);
        }
    }
}
