<?php

/**
 * A drop-in replacement for `pkLockClient`, the class through which PHP code uses pkLockServer, or
 * a server for its clients. `require` this file alone. It must not need any other file of the
 * package. It uses the `message` protocol only in ways that also work with the original server,
 * which keeps no time limits and knows neither `hello` nor `cancel`.
 */

declare(strict_types=1);

/**
 * A connection to a lock server, made by the first call that needs it. It owns the locks acquired
 * through it, which are freed when the object is destroyed. A second lock() of a name that this
 * object holds returns true, and one unlock() frees the lock.
 *
 * Nothing throws. After a failure the answer is false, an E_USER_WARNING gives the reason once, and
 * error() returns it again.
 *
 * When a connection is lost, its locks are lost. If locks were held, every later call returns
 * false, and only a new object connects again, so that code which believes that it holds them is
 * told. If no lock was held, the next lock() or rpc() connects again, so that a worker survives a
 * restart of its server. A grant counts only if the connection is alive after it has been read.
 *
 * After a fork the connection belongs to the parent alone: each call in the child returns false.
 * The child needs an object of its own, and should destroy its copy of this one: while the copy
 * exists, the death of the parent does not end the connection.
 *
 * Names are used as they are, byte by byte. The drop-in `lockc` folds white space, so for some names
 * the two classes get different locks.
 *
 * Signal handlers run while a call waits. They may throw or exit, but must not use the waiting
 * object.
 */
class pkLockClient
{
    private const DEFAULTS = ['host' => 'localhost', 'port' => 20934, 'connectTimeLimit' => 10,
        'answerTimeLimit' => 10, 'timeLimit' => 30];
    /** How long the client waits for the server to say that a time limit has passed, in seconds. */
    private const GRACE_SECONDS = 0.5;
    /** The longest time limit of PHP's streams, in place of none. */
    private const SECONDS_MAX = 1e6;
    /** The commands whose results may tell a program that it holds a lock. */
    private const TELL_OF_LOCKS = ['lock', 'convert', 'inspect', 'list', 'ping'];
    private const MESSAGE_MAX = 1 << 26;
    private const FATAL = E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR;

    /** Those of the constructor. */
    private array $options;
    /** @var resource|null */
    private $connection = null;
    /** The id of the process that opened the connection. */
    private int $owner = 0;
    private string $received = '';
    private int $nextId = 0;
    /** When the latest request that the server has answered was sent, in seconds. */
    private float $proven = 0.0;
    /** For how long after that the server certainly keeps this client's locks, in seconds. */
    private float $proofLasts = INF;
    /**
     * @var array<int, array|null> the replies to the requests that await one, by id; null: not
     *     there yet
     */
    private array $replies = [];
    /**
     * @var array<int, string> the names of the unlocks that are not answered yet; the server
     *     answers in their order
     */
    private array $unlocks = [];
    private int $nextUnlock = 0;
    /** Why the last unlock that was answered has failed; empty: this object does not hold the lock. */
    private string $notUnlocked = '';
    /** @var array<string, true> the names that lock() has acquired */
    private array $held = [];
    /**
     * Whether rpc() has sent commands that change locks, so that other locks than these may be
     * held.
     */
    private bool $changed = false;
    /**
     * Whether this object must not connect again, because locks were lost with its connection,
     * or because the connection is the parent's.
     */
    private bool $lost = false;
    private bool $busy = false;
    private string $error = '';
    /**
     * The exception that this object has just made, to distinguish it from those of signal
     * handlers.
     */
    private ?RuntimeException $failure = null;
    /** @var WeakMap<self, true>|null all objects that have been connected */
    private static ?WeakMap $objects = null;

    /**
     * Does not connect.
     *
     * @param array $options `host` (a host name, an address, or `unix:/PATH`) and `port`; and how
     *     many seconds to wait at most: `connectTimeLimit` (10) for a connection, `answerTimeLimit`
     *     (10) for answers that the server gives at once, and `timeLimit` (30; false: no limit) for
     *     what lock() and rpc() ask for, unless they say otherwise
     */
    public function __construct($options = [])
    {
        $this->options = (array) $options + self::DEFAULTS;
    }

    /**
     * Waits for the lock, first come, first served.
     *
     * @param array $options `timeLimit`: how many seconds to wait; false for no limit
     * @return bool whether this object holds the lock now
     */
    public function lock(mixed $name, $options = [])
    {
        return $this->carryOut(function () use ($name, $options): bool {
            $limit = $this->seconds('timeLimit', (array) $options);
            $parameters = $this->nameParameter($name) + ['timeLimit' => is_finite($limit) ? $limit : false];
            // For a lock that is already held the server answers at once, unless it hangs.
            $free = !$this->changed && !isset($this->held[(string) $name]);
            $limit += $free ? self::GRACE_SECONDS : $this->seconds('answerTimeLimit');
            $reply = $unlock = null;
            try {
                $reply = $this->askOfLock('lock', $parameters, $limit);
            } finally {
                // The time limit has passed, or a signal handler has thrown. An unlock withdraws
                // the request in the only way that the original server knows. If the lock is
                // granted at this moment, it frees it again.
                if ($reply === null && $this->connection !== null) {
                    $unlock = $free ? $this->sendUnlock($name) : $this->lose('the server does not answer');
                }
            }
            if ($reply === null) {
                is_int($unlock) ? $this->answer($unlock) : throw $unlock;
                return false;
            }
            $status = $reply['result']['status'] ?? null;
            if ($status === 'ok') {
                return $this->held[(string) $name] = true;
            }
            if (!in_array($status, ['timeout', 'refused', 'deadlock', 'invalid', 'unknown', 'cancelled'], true)) {
                throw $this->lose('the server sent a reply that is not understood');
            }
            if ($status !== 'timeout') {
                $this->error = 'pkLockClient: the server says: ' . json_encode($reply['result']);
            }
            return false;
        });
    }

    /**
     * Releases the lock. True also if this object does not hold it, unless it held it and has lost
     * it.
     *
     * @return bool false: the lock was lost, or the server has not answered
     */
    public function unlock(mixed $name)
    {
        return $this->carryOut(function () use ($name): bool {
            // Without a connection it holds nothing.
            $reason = $this->connection === null ? '' : $this->answer($this->sendUnlock($name));
            return $reason === '' ?: throw $this->fail($reason);
        }, false);
    }

    /**
     * Reads what the server has sent, without waiting. Does not connect.
     *
     * @return bool whether there is a connection, as far as is known without asking the server
     */
    public function poll()
    {
        return $this->carryOut(fn (): bool => $this->connection !== null, false);
    }

    /**
     * Waits until the server has answered all that it was asked: an unlock() that has returned
     * false may be unanswered. Does not connect. (Requests are sent at once, so nothing is left to
     * send.)
     *
     * @return bool whether no answer is outstanding
     */
    public function flush()
    {
        return $this->carryOut(function (): bool {
            $isAnswered = fn (): bool => $this->unlocks === [];
            return $this->connection === null || $this->read($this->seconds('answerTimeLimit'), $isAnswered)
                || throw $this->fail('the server does not answer');
        }, false);
    }

    /**
     * Sends any command to the server. If a command that changes locks is not answered in time, the
     * connection is ended, so that nothing is granted unnoticed. lock() and unlock() do not need
     * that.
     *
     * @param string $command
     * @param array $parameters
     * @param array $options `timeLimit`: how many seconds to wait for the result; false for no limit
     * @return mixed the result, an array; false if there was no result in time
     */
    public function rpc($command, $parameters = [], $options = [])
    {
        return $this->carryOut(function () use ($command, $parameters, $options) {
            $limit = $this->seconds('timeLimit', (array) $options);
            $parameters = (array) $parameters;
            $changes = in_array($command, ['lock', 'unlock', 'convert'], true);
            if ($changes) {
                $this->changed = true;
                $parameters += ['timeLimit' => is_finite($limit) ? $limit : false];
            }
            $ask = in_array($command, self::TELL_OF_LOCKS, true) ? $this->askOfLock(...) : $this->ask(...);
            $reply = $lost = null;
            try {
                $reply = $ask((string) $command, $parameters, $limit + self::GRACE_SECONDS);
            } finally {
                if ($changes && $reply === null && $this->connection !== null) {
                    $lost = $this->lose("the server does not answer to $command");
                }
            }
            if ($lost !== null || isset($reply['error'])) {
                throw $lost ?? $this->fail('the server says: ' . json_encode($reply['error']));
            }
            return $reply['result'] ?? false;
        });
    }

    /**
     * Why a call returned false, if the reason was not just that another holds the lock; empty if
     * that has not happened.
     *
     * @return string
     */
    public function error()
    {
        return $this->error;
    }

    public function __destruct()
    {
        $this->end();
    }

    private function __clone()
    {
    }

    /**
     * Carries out a call, if no locks have been lost, with a connection if it needs one. Signal
     * handlers run only where it waits, and this object's own exceptions become warnings.
     */
    private function carryOut(callable $call, bool $connects = true)
    {
        $async = function_exists('pcntl_async_signals') && pcntl_async_signals();
        $nested = $this->busy;
        try {
            // The handler of a signal that has just arrived may run here and throw: `finally` must
            // then undo this.
            $async && pcntl_async_signals(false);
            $this->busy = true;
            if ($nested) {
                throw $this->fail('a signal handler has used the object while it waits');
            }
            if ($this->connection !== null && $this->owner !== getmypid()) {
                $this->end();
                $this->lost = true;
                throw $this->fail('the connection is that of the parent process, which alone may use it');
            }
            if ($this->lost) {
                return false;
            }
            $this->readArrived();
            if ($connects && $this->connection === null) {
                $this->connect();
            }
            return $call();
        } catch (Throwable $exception) {
            if ($exception !== $this->failure) {
                // An exception of a signal handler, which may have cost the connection.
                $this->lost && trigger_error($this->error, E_USER_WARNING);
                throw $exception;
            }
        } finally {
            $this->busy = $nested;
            // The exception's trace may refer to this object, which would then not be destroyed
            // when it is released.
            $this->failure = null;
            if ($async) {
                pcntl_async_signals(true);
                pcntl_signal_dispatch();
            }
        }
        trigger_error($this->error, E_USER_WARNING);
        return false;
    }

    /**
     * Reads what has arrived meanwhile. It is no failure if the connection has ended while no lock
     * was held.
     */
    private function readArrived(): void
    {
        try {
            $this->connection !== null && $this->readAll();
        } catch (RuntimeException $exception) {
            if ($exception !== $this->failure || $this->lost) {
                throw $exception;
            }
        }
    }

    private function connect(): void
    {
        $this->connection = $this->open();
        stream_set_blocking($this->connection, false);
        stream_set_timeout($this->connection, (int) ceil(min($this->seconds('answerTimeLimit'), self::SECONDS_MAX)));
        $this->owner = getmypid();
        $this->proven = self::now();
        $this->proofLasts = INF;
        if (self::$objects === null) {
            self::$objects = new WeakMap();
            register_shutdown_function([self::class, 'atShutdown']);
        }
        self::$objects[$this] = true;
        // Do not wait for the answer: the original server does not give one.
        $hello = ['client' => 'pkLockClient', 'version' => PHP_VERSION];
        $this->send(['command' => 'hello', 'parameters' => $hello, 'id' => 'hello']);
    }

    /**
     * @return resource a stream to the first address of the host that answers; each is tried for an
     *     equal share of the time
     */
    private function open()
    {
        $context = stream_context_create(['socket' => ['tcp_nodelay' => true]]);
        $addresses = $this->addresses();
        $end = self::now() + $this->seconds('connectTimeLimit');
        $error = '';
        foreach ($addresses as $at => $address) {
            $share = ($end - self::now()) / (count($addresses) - $at);
            if ($at > 0 && $share <= 0) {
                break;
            }
            $share = max(0.001, min($share, self::SECONDS_MAX));
            $connection = @stream_socket_client($address, $no, $error, $share, STREAM_CLIENT_CONNECT, $context);
            if ($connection !== false) {
                return $connection;
            }
        }
        throw $this->fail('cannot connect to ' . implode(' or ', $addresses) . ": $error");
    }

    /** @return non-empty-list<string> the addresses to try, in the form that PHP's streams take */
    private function addresses(): array
    {
        $host = (string) $this->options['host'];
        if (preg_match('#^unix:(?://)?(/.*)$#s', $host, $path)) {
            return ['unix://' . $path[1]];
        }
        $hosts = substr_count($host, ':') > 1 ? ['[' . trim($host, '[]') . ']'] : $this->resolve($host);
        return array_map(fn (string $host): string => "tcp://$host:" . (int) $this->options['port'], $hosts);
    }

    /**
     * @return non-empty-list<string> the addresses of a host, IPv6 in brackets; or the host itself,
     *     if unknown
     */
    protected function resolve(string $host): array
    {
        if (!function_exists('socket_addrinfo_lookup')) {
            // gethostbynamel knows only IPv4. The name itself comes last, for PHP to find other
            // addresses.
            return [...(gethostbynamel($host) ?: []), $host];
        }
        $addresses = [];
        foreach (@socket_addrinfo_lookup($host, null, ['ai_socktype' => SOCK_STREAM]) ?: [] as $found) {
            $address = socket_addrinfo_explain($found)['ai_addr'];
            $addresses[] = $address['sin_addr'] ?? "[{$address['sin6_addr']}]";
        }
        return $addresses ?: [$host];
    }

    private static function now(): float
    {
        return hrtime(true) / 1e9;
    }

    /**
     * Like ask(), for commands whose results say that a lock is held. A result counts only if the
     * connection is alive after it has been read: the process may have been stopped before, the
     * connection may have ended meanwhile, and another client may hold the lock. The end of a
     * connection arrives after the result. If the network was cut, no end arrives: so the server
     * must have answered a request that was sent only a short time ago.
     */
    private function askOfLock(string $command, array $parameters, float $seconds): ?array
    {
        $reply = $this->ask($command, $parameters, $seconds);
        if ($reply === null || ($reply['result']['status'] ?? null) !== 'ok') {
            return $reply;
        }
        $this->readAll();
        while (self::now() - $this->proven >= $this->proofLasts) {
            if ($this->ask('ping', [], $this->seconds('answerTimeLimit')) === null) {
                throw $this->lose('the server does not answer');
            }
            $this->readAll();
        }
        return $reply;
    }

    /**
     * Sends a request and waits for its reply; null: no reply in time. A reply that comes later is
     * dropped.
     */
    private function ask(string $command, array $parameters, float $seconds): ?array
    {
        $id = $this->nextId++;
        $sent = self::now();
        $this->send(['command' => $command, 'parameters' => (object) $parameters, 'id' => $id]);
        $this->replies[$id] = null;
        try {
            if ($this->read($seconds, fn (): bool => $this->replies[$id] !== null)) {
                $this->proven = $sent;
            }
            return $this->replies[$id];
        } finally {
            unset($this->replies[$id]);
        }
    }

    private function sendUnlock(mixed $name): int
    {
        $this->send(['command' => 'unlock'] + $this->nameParameter($name));
        $this->unlocks[$this->nextUnlock] = (string) $name;
        return $this->nextUnlock++;
    }

    /** Waits until this unlock is answered; returns why it failed, or an empty text. */
    private function answer(int $unlock): string
    {
        if (!$this->read($this->seconds('answerTimeLimit'), fn (): bool => !isset($this->unlocks[$unlock]))) {
            throw $this->fail('the server does not answer an unlock');
        }
        return $this->notUnlocked;
    }

    /**
     * Handles messages until `$done` returns true or `$seconds` have passed, but at least those
     * that have arrived.
     */
    private function read(float $seconds, callable $done): bool
    {
        $end = self::now() + $seconds;
        for ($last = false; true; $last = $left <= 0) {
            while (!$done() && ($message = $this->receive()) !== null) {
                $this->handle($message);
            }
            if ($done() || $last) {
                return $done();
            }
            $left = $end - self::now();
            $readable = [$this->connection];
            $none = null;
            if (@stream_select($readable, $none, $none, 0, (int) (max(0.0, min($left, 0.1)) * 1e6)) === false) {
                // A signal, or a descriptor that is too high for select(): sleep, so that this loop
                // is not a busy one.
                usleep(1000);
            }
            $this->readSome();
            if (function_exists('pcntl_signal_dispatch')) {
                pcntl_signal_dispatch();
            }
        }
    }

    /** Handles all that has arrived, without waiting. */
    private function readAll(): void
    {
        do {
            while (($message = $this->receive()) !== null) {
                $this->handle($message);
            }
        } while ($this->readSome());
    }

    /** Reads some of what has arrived, without waiting; false: nothing has arrived. */
    private function readSome(): bool
    {
        $bytes = (string) @fread($this->connection, 65536);
        if ($bytes === '' && stream_get_meta_data($this->connection)['eof']) {
            throw $this->lose('the server has ended the connection');
        }
        $this->received .= $bytes;
        return $bytes !== '';
    }

    /** The next message, if all of it has arrived. */
    private function receive(): ?array
    {
        $length = strlen($this->received) < 4 ? 0 : unpack('N', $this->received)[1];
        if ($length > self::MESSAGE_MAX) {
            throw $this->lose($this->otherProtocol() ?? 'the server does not speak the message protocol');
        }
        if (strlen($this->received) < 4 + $length) {
            return null;
        }
        $message = json_decode(substr($this->received, 4, $length), true);
        $this->received = substr($this->received, 4 + $length);
        return is_array($message) ? $message : throw $this->lose('the server sent something that is not a message');
    }

    /** Which other protocol the server speaks; null: unknown. */
    private function otherProtocol(): ?string
    {
        $wanted = 'this class needs a port with the message protocol (20934, unless the server says otherwise)';
        $line = addcslashes(substr(strtok($this->received, "\r\n") ?: '', 0, 80), "\0..\37\"\\\177..\377");
        return match (true) {
            preg_match('/^[\x15\x16]\x03/', $this->received) === 1 =>
                "the server speaks TLS there, which this class does not: $wanted, without TLS",
            str_starts_with($this->received, 'HTTP/1') => "the server speaks HTTP there (\"$line\"): $wanted",
            preg_match('/^[\x20-\x7e\t\r\n]{4}/', $this->received) === 1 =>
                "the server speaks a text protocol there (\"$line\"): $wanted",
            default => null,
        };
    }

    private function handle(array $message): void
    {
        $id = $message['id'] ?? null;
        if (is_int($id) && array_key_exists($id, $this->replies)) {
            $this->replies[$id] = $message;
        } elseif ($id === 'hello') {
            $this->keepAlive($message['result']['keepalive']['deadPeerTimeout'] ?? null);
        } elseif ($id === null && isset($message['error'])) {
            throw $this->lose('the server says: ' . json_encode($message['error']));
        } elseif (($message['attempted'] ?? null) === 'unlock' && $this->unlocks !== []) {
            $this->unlockAnswered($message['result'] ?? null);
        }
    }

    /** Handles the answer to the first of the outstanding unlocks. */
    private function unlockAnswered(mixed $result): void
    {
        $name = reset($this->unlocks);
        // It is no failure that there was nothing to release, unless this object believes that it
        // holds the lock. It does not know what rpc() has released.
        $isFree = $result === 'ok' || $result === 'notFound' && ($this->changed || !isset($this->held[$name]));
        $this->notUnlocked = $isFree ? '' : 'the server says to an unlock: ' . json_encode($result);
        unset($this->held[$name], $this->unlocks[key($this->unlocks)]);
    }

    /**
     * Makes the kernel notice when the server's machine is gone, before the server gives this
     * client's locks to others after its dead-peer timeout. The figures are from docs/protocol.md,
     * section 1.
     */
    private function keepAlive(mixed $timeout): void
    {
        $isTcp = !str_starts_with((string) $this->options['host'], 'unix:');
        if (!is_int($timeout) || $timeout < 12 || $timeout > 32767 || !$isTcp) {
            return;
        }
        $limit = intdiv(7 * $timeout, 25);
        $this->proofLasts = 2 * $limit + 2.5;
        if (PHP_OS_FAMILY !== 'Linux' || !function_exists('socket_import_stream')) {
            return;
        }
        $interval = max(1, intdiv($limit, 7));
        $idle = $limit - intdiv(intdiv(4 * $limit + 6, 7), $interval) * $interval;
        $socket = socket_import_stream($this->connection);
        socket_set_option($socket, SOL_SOCKET, SO_KEEPALIVE, 1);
        // TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT, and TCP_RTO_MAX_MS (from
        // Linux 6.15 on)
        $probes = intdiv($limit - $idle, $interval);
        foreach ([4 => $idle, 5 => $interval, 6 => $probes, 18 => $limit * 1000, 44 => 1000] as $option => $value) {
            @socket_set_option($socket, SOL_TCP, $option, $value);
        }
    }

    private function send(array $message): void
    {
        $json = json_encode($message);
        if ($json === false) {
            throw $this->fail('this cannot be sent: ' . json_last_error_msg());
        }
        $frame = pack('N', strlen($json)) . $json;
        stream_set_blocking($this->connection, true);
        if (@fwrite($this->connection, $frame) !== strlen($frame)) {
            // A server that has ended the connection may have sent bytes before that show its
            // protocol.
            stream_set_blocking($this->connection, false);
            $this->received .= (string) @fread($this->connection, 65536);
            throw $this->lose($this->otherProtocol() ?? 'the request could not be sent');
        }
        stream_set_blocking($this->connection, false);
    }

    /** @return array<string, string> the parameter for the name */
    private function nameParameter(mixed $name): array
    {
        if (is_array($name) || is_object($name) && !method_exists($name, '__toString')) {
            throw $this->fail('a name must be a string');
        }
        $name = (string) $name;
        return preg_match('//u', $name) ? ['lockName' => $name] : ['lockNameHex' => bin2hex($name)];
    }

    /** How long to wait by this option of the call, or else of the constructor; INF: no limit. */
    private function seconds(string $option, array $options = []): float
    {
        $limit = $options[$option] ?? $this->options[$option] ?? self::DEFAULTS[$option];
        if ($limit !== false && (!is_numeric($limit) || is_nan((float) $limit))) {
            throw $this->fail('a time limit must be a number of seconds, or false for none');
        }
        return $limit === false ? INF : max(0.0, (float) $limit);
    }

    private function fail(string $reason): RuntimeException
    {
        $this->error = "pkLockClient: $reason";
        return $this->failure = new RuntimeException($this->error);
    }

    /** Ends the connection. All locks held on it are lost. */
    private function lose(string $reason): RuntimeException
    {
        $this->end();
        $this->received = '';
        $this->unlocks = [];
        $this->lost = $this->changed || $this->held !== [];
        return $this->fail($this->lost ? "$reason; all its locks are lost" : $reason);
    }

    private function end(): void
    {
        if ($this->connection === null) {
            return;
        }
        $connection = $this->connection;
        $this->connection = null;
        if ($this->owner === getmypid()) {
            // PHP's sockets are not close-on-exec: a program started in the background has
            // inherited this one and would keep the locks. So closing it is not enough.
            @stream_socket_shutdown($connection, STREAM_SHUT_RDWR);
        }
        fclose($connection);
    }

    /**
     * Internal. PHP runs no destructors after a memory or time limit was exceeded, so the
     * connections are ended here, after all other shutdown functions.
     *
     * @internal
     */
    public static function atShutdown(bool $last = false): void
    {
        $error = error_get_last() ?? ['type' => 0, 'message' => ''];
        if (!$last) {
            register_shutdown_function([self::class, 'atShutdown'], true);
        } elseif ($error['type'] & self::FATAL && !str_starts_with($error['message'], 'Uncaught ')) {
            foreach (self::$objects as $object => $connected) {
                $object->end();
            }
        }
    }
}
