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
use Lockd\Internal\Moment;
use Lockd\Internal\Process;
use Lockd\Internal\Quietly;
use Lockd\Internal\Signals;
use UnexpectedValueException;

/**
 * Frames of the `message` protocol over a plain stream, which PHP closes however a script ends.
 * Sends requests and keeps replies until the caller fetches them. Knows nothing of locks. After
 * anything that puts the state of the stream in doubt, the connection is over: nothing is read or
 * sent any more, and every later call throws. Its stream is then closed too, unless
 * {@see keepOpen()} was called.
 *
 * @internal
 */
final class Connection implements Endable
{
    /**
     * The longest time, in seconds, for which a signal handler is deferred if its signal comes just
     * before a wait.
     */
    private const SLICE = 0.25;

    /** What may be wrong with a server that has not answered anything yet. */
    public const UNANSWERED = ': it hangs, or speaks another protocol there than `message`, which clients need '
        . '(port 20934 unless the server says otherwise; not that of lockd, 2626, or of glockd, 9999)';

    /** @var ?resource null: it is closed */
    private $stream;
    private readonly int $pid;
    private readonly Frames $frames;
    /** What could not be sent yet without waiting. */
    private string $unsent = '';
    private int $lastId = 0;
    /** @var array<int, ?Result> the reply to each request, by id; null: not there yet */
    private array $asked = [];
    /** @var array<int, Moment> when each of those requests was sent */
    private array $sent = [];
    /** The ping that was sent and not waited for; null: none is under way. */
    private ?int $ping = null;
    /** Whether {@see end()} leaves the connection to the processes that have inherited it. */
    private bool $isForChildren = false;
    private bool $isKeptOpen = false;
    /** What the server has said as a standby of a cluster; null: nothing. */
    private ?Result $standby = null;
    /** Why the connection is over; null: it is not. */
    private ?string $end = null;
    private float $heard;
    /** When the latest request that the server has answered was sent. */
    private Moment $proven;
    /** For how long after that the server certainly keeps this client's locks, in seconds. */
    private float $proofLasts = INF;

    /**
     * @param resource $stream
     * @param ?string $remote the server's address in numbers, or the path; null: the stream knows it
     */
    private function __construct(
        $stream,
        public readonly Address $address,
        public readonly float $timeout,
        private readonly ?string $remote = null,
    ) {
        stream_set_blocking($stream, false);
        $this->stream = $stream;
        $this->frames = new Frames();
        $this->pid = Process::id();
        $this->heard = Deadline::now();
        $this->proven = Moment::now();
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
     * Begins to connect, without waiting; the connection is there when {@see isConnected()} says so.
     *
     * @param string $remote the address in numbers, or the path: no resolver is asked
     * @throws ConnectException
     */
    public static function begin(Address $address, string $remote, float $timeout): self
    {
        return new self((new Dialer())->begin($address, $remote), $address, $timeout, $remote);
    }

    /**
     * Whether the connection is there; false: not yet.
     *
     * @throws ConnectionLostException nothing listens there, for example
     */
    public function isConnected(): bool
    {
        $isConnected = Dialer::isConnected($this->stream());
        if ($isConnected === false) {
            throw $this->lose('it cannot be reached');
        }
        return $isConnected === true;
    }

    /** The server's address in numbers, or the path, in the form that PHP's streams take. */
    public function remote(): string
    {
        return match (true) {
            $this->remote !== null => $this->remote,
            preg_match(Dialer::NUMERIC, $this->address->remote) === 1 => $this->address->remote,
            default => 'tcp://' . stream_socket_get_name($this->stream(), true),
        };
    }

    /**
     * Sends a request. Its answer is fetched with {@see answer()}.
     *
     * @param array<string, mixed> $parameters
     * @return int the request's id
     */
    public function send(string $command, array $parameters): int
    {
        $id = $this->post($command, $parameters);
        $deadline = Deadline::in($this->timeout);
        while (!$this->flush()) {
            if ($deadline->isOver()) {
                $limit = Deadline::text($this->timeout);
                throw $this->lose("the server has not read what it was sent within $limit s");
            }
            $this->awaitStream(false, $deadline->remaining());
        }
        return $id;
    }

    /**
     * Sends a request without waiting: what the socket does not take now goes with a later call.
     *
     * @param array<string, mixed> $parameters
     * @return int the request's id
     */
    public function post(string $command, array $parameters): int
    {
        $id = ++$this->lastId;
        $frame = Frames::encode(['command' => $command, 'parameters' => (object) $parameters, 'id' => $id]);
        if ($frame === false) {
            $problem = json_last_error_msg();
            throw new InvalidArgumentException("the parameters of \"$command\" cannot be written as JSON: $problem");
        }
        // Before it is sent, because a read may take in the answer at once.
        $this->asked[$id] = null;
        $this->sent[$id] = Moment::now();
        $this->unsent .= $frame;
        $this->flush();
        return $id;
    }

    /** Sends what can be sent without waiting; true: nothing is left. */
    private function flush(): bool
    {
        while ($this->unsent !== '') {
            $stream = $this->stream();
            $bytes = $this->unsent;
            $written = Quietly::call(static fn () => fwrite($stream, $bytes));
            if ($written === false) {
                throw $this->lose('the server has ended the connection');
            }
            if ($written === 0) {
                return false;
            }
            $this->unsent = substr($bytes, $written);
        }
        return true;
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
                $hint = $this->frames->hasMessage ? '' : self::UNANSWERED;
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
        while ($this->proven->age() >= $this->proofLasts) {
            $this->ask('ping', []);
            $this->readAll();
        }
    }

    /** When the latest request that the server has answered was sent. */
    public function proof(): Moment
    {
        return $this->proven;
    }

    /**
     * Sends a ping, without waiting for its answer, if what has been answered is older than so many
     * seconds and no ping is under way. If one is, and has not been answered for `$patience` seconds,
     * this gives the connection up.
     *
     * @throws ConnectionLostException
     */
    public function renewProof(float $olderThan, float $patience = INF): void
    {
        $this->flush();
        if ($this->ping !== null && $this->answer($this->ping) !== null) {
            $this->ping = null;
        }
        if ($this->ping !== null && $this->sent[$this->ping]->age() > $patience) {
            // This process may have been stopped, or busy, since the answer came.
            $this->readAll();
            if ($this->answer($this->ping) === null) {
                throw $this->lose('the server does not answer; it may be at another place');
            }
            $this->ping = null;
        }
        if ($this->ping === null && $this->proven->age() > $olderThan) {
            $this->ping = $this->post('ping', []);
        }
    }

    /**
     * Sends what can be sent without waiting, and reads some of what has arrived; false: nothing
     * has.
     */
    public function poll(): bool
    {
        $this->flush();
        return $this->read();
    }

    /** Why the connection is over; null: it is not. */
    public function whyOver(): ?string
    {
        return $this->end;
    }

    /** What a list of places says of a standby; null: the server has not said that it is one. */
    public function standby(): ?string
    {
        $active = $this->standby?->text('active');
        return $this->standby === null ? null : 'standby' . ($active === null ? '' : " (active: $active)");
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
        try {
            foreach ($this->frames->decode($bytes) as $message) {
                $this->handle($message);
            }
        } catch (UnexpectedValueException $e) {
            throw $this->lose($e->getMessage());
        }
        return true;
    }

    /** False if what the server has sent shows that it does not speak `message`. */
    public function speaksMessage(): bool
    {
        return $this->frames->areMessages;
    }

    /** Whether the connection is alive, as far as this can be known without asking the server. */
    public function isAlive(): bool
    {
        if ($this->end !== null || $this->pid !== Process::id()) {
            return false;
        }
        try {
            $this->flush();
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

    /**
     * From now on {@see lose()} leaves the stream open, and unread: the server takes its end for
     * this client's word that its work has ended.
     */
    public function keepOpen(): void
    {
        $this->isKeptOpen = true;
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

    /**
     * Closes the stream by a reset, which the server does not take for this client's word.
     *
     * @return bool false: this cannot be done here, and the stream is still open
     */
    public function reset(): bool
    {
        $closesByReset = $this->address->isTcp && is_resource($this->stream)
            && Keepalive::closeByReset($this->stream);
        if ($closesByReset) {
            $this->abandon();
        }
        return $closesByReset || $this->stream === null;
    }

    public function abandon(): void
    {
        // At the end of a script PHP may have closed the stream already.
        if (is_resource($this->stream)) {
            $stream = $this->stream;
            Quietly::call(static fn () => fclose($stream));
        }
        $this->stream = null;
        $this->end ??= 'the connection was closed';
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

    /** Gives up a connection that can no longer be relied on, and returns the exception to throw. */
    public function lose(string $reason): ConnectionLostException
    {
        $this->end ??= $reason;
        $this->asked = $this->sent = [];
        if (!$this->isKeptOpen || $this->isForChildren) {
            $this->end();
        }
        return new ConnectionLostException($this->address->text . ": $reason");
    }

    /** @return resource */
    private function stream()
    {
        if ($this->pid !== Process::id()) {
            throw new ForkedException('this connection is the parent process\'s: a forked child must open its own');
        }
        if ($this->stream === null || $this->end !== null) {
            throw new ConnectionLostException("{$this->address->text}: $this->end");
        }
        return $this->stream;
    }

    /** Waits until bytes can be sent or have arrived, for at most `$seconds`. */
    public function awaitProgress(bool $toRead, float $seconds): void
    {
        $this->awaitStream($toRead && $this->unsent === '', $seconds);
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

    private function handle(Result $message): void
    {
        $id = $message->integer('id');
        if (isset($message->fields['error']) && !isset($message->fields['id'])) {
            // It belongs to no request: the server refuses this client, or could not decode what it
            // was sent.
            throw $this->lose($message->text('error') ?? 'the server reports an error');
        }
        $result = $message->object('result');
        if ($result->text('status') === 'refused' && $result->text('cause') === 'standby') {
            // It holds no sessions, carries out nothing, and ends the connection.
            $this->standby = $result;
            throw $this->lose($result->text('reason') ?? 'this server is a standby');
        }
        if ($id !== null && array_key_exists($id, $this->asked)) {
            $this->asked[$id] = $message;
            $this->proven = $this->proven->orLater($this->sent[$id]);
        }
    }
}
