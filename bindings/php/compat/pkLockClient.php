<?php

/**
 * A drop-in `pkLockClient`, the class by which PHP code talks to pkLockServer, or to what listens for its clients.
 * `require` this file alone; it needs nothing else of the package, and must not. It speaks the `message` protocol as
 * far as the original server knows it, too: that one keeps no time limit and knows neither `hello` nor `cancel`.
 */

declare(strict_types=1);

/**
 * A connection to a lock server, and with it the owner of the locks got through it. They are freed when the object
 * goes. A second lock() of a name that this object holds says yes, and one unlock() frees it.
 *
 * Only the constructor throws. Whatever else goes wrong, the answer is false, an E_USER_WARNING says once what it
 * was, and error() says it again.
 *
 * A lost connection has lost its locks. If locks were held, every call from then on is false, and only a new object
 * connects again: whoever believes to hold them must find out. If none was held, the next lock() or rpc() connects
 * again, so that a worker outlives a restart of its server.
 *
 * After a fork the connection is the parent's alone: each call in the child is false. The child needs an object of
 * its own, and should let go of its copy of this one: while the copy is there, the death of the parent does not end
 * the connection.
 *
 * Names are taken as they are, byte by byte. The drop-in `lockc` folds white space, as its protocol does: the two get
 * different locks by a name with white space at an end, a tab, or two spaces in a row.
 *
 * A lock that was waited for counts only if the connection is alive after the server's yes has been read. From the
 * original server that is known by the end of the connection alone; a lockd is asked again after a long wait.
 *
 * Signal handlers run while a call waits. They may throw or exit, but not use the object that waits.
 */
class pkLockClient
{
    private const CONNECT_SECONDS = 10.0;
    /** How long the server may take to answer what it need not wait for. */
    private const ANSWER_SECONDS = 10.0;
    /** How long after the time limit the server may say that it is over, before the client finds so itself. */
    private const GRACE_SECONDS = 0.5;
    /** The commands by whose results a program may believe that it holds a lock. */
    private const TELL_OF_LOCKS = ['lock', 'convert', 'inspect', 'list', 'ping'];
    private const MESSAGE_MAX = 1 << 26;
    private const FATAL = E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR;

    private string $host;
    private int $port;
    /** @var resource|null */
    private $connection = null;
    /** The process whose connection it is. */
    private int $owner = 0;
    private string $received = '';
    private int $nextId = 0;
    /** When the last of all requests was sent that the server has answered, in seconds. */
    private float $proven = 0.0;
    /** How long that request proves, in seconds, that the server keeps what is held. */
    private float $proofLasts = INF;
    /** @var array<int, array|null> the replies to the requests that wait for one, by id */
    private array $replies = [];
    /** @var array<int, string> the names of the unlocks that are not answered yet, which happens in their order */
    private array $unlocks = [];
    private int $nextUnlock = 0;
    /** What the last answer to an unlock said. */
    private string $unlocked = '';
    /** @var array<string, true> the names that lock() has got */
    private array $held = [];
    /** Whether locks were changed by rpc(), so that others may be held than those. */
    private bool $changed = false;
    /** Whether there must be no other connection, since locks were lost with this one, or it is the parent's. */
    private bool $lost = false;
    private bool $busy = false;
    private string $error = '';
    /** The one to tell own exceptions from those of signal handlers. */
    private ?RuntimeException $failure = null;
    /** @var WeakMap<self, true>|null all that have been connected */
    private static ?WeakMap $objects = null;

    /**
     * @param array $options `host` (a name, an address, or `unix:/PATH`) and `port`
     * @throws Exception if there is no connection to be had
     */
    public function __construct($options = [])
    {
        $options = (array) $options + ['host' => 'localhost', 'port' => 20934];
        $this->host = (string) $options['host'];
        $this->port = (int) $options['port'];
        $this->connect();
    }

    /**
     * Waits for the lock, first come, first served.
     *
     * @param array $options `timeLimit`: how many seconds to wait, 30 unless told; false for no limit
     * @return bool whether this object holds the lock now
     */
    public function lock(mixed $name, $options = [])
    {
        return $this->alone(function () use ($name, $options): bool {
            $limit = $this->timeLimit($options);
            $parameters = $this->named($name) + ['timeLimit' => is_finite($limit) ? $limit : false];
            // What is held is answered at once, unless the server hangs.
            $free = !$this->changed && !isset($this->held[(string) $name]);
            $limit += $free ? self::GRACE_SECONDS : self::ANSWER_SECONDS;
            $reply = $unlock = null;
            try {
                $reply = $this->askOfLock('lock', $parameters, $limit);
            } finally {
                // The time is over, or a signal handler has thrown. An unlock takes the request back in the one way
                // that the original server knows, too. If the lock is granted just now, it frees it again.
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

    /** @return bool whether there was something to unlock */
    public function unlock(mixed $name)
    {
        return $this->alone(fn (): bool => $this->answer($this->sendUnlock($name)) === 'ok');
    }

    /**
     * Any command of the server. One that changes locks and is not answered in time costs the connection, so that
     * nothing is granted unnoticed; lock() and unlock() are better at that.
     *
     * @param string $command
     * @param array $parameters
     * @param array $options `timeLimit`: how many seconds to wait for the result, 30 unless told; false for no limit
     * @return mixed the result, an array; false if there was none in time
     */
    public function rpc($command, $parameters = [], $options = [])
    {
        return $this->alone(function () use ($command, $parameters, $options) {
            $limit = $this->timeLimit($options);
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
     * Why a call was false although the lock was not simply held by another; empty if that has not happened.
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

    /** Carries a call out, with no signal handler in between but where it waits, and without exceptions of its own. */
    private function alone(callable $call)
    {
        $async = function_exists('pcntl_async_signals') && pcntl_async_signals();
        $nested = $this->busy;
        try {
            // One whose signal has just come runs here, and may throw: then handlers are to run at once again.
            $async && pcntl_async_signals(false);
            $this->busy = true;
            if ($nested) {
                throw $this->fail('a signal handler has used it while it waits');
            }
            if ($this->connection !== null && $this->owner !== getmypid()) {
                $this->end();
                $this->lost = true;
                throw $this->fail('the connection is that of the parent process, which alone may use it');
            }
            if ($this->lost) {
                return false;
            }
            $this->ready();
            return $call();
        } catch (Throwable $exception) {
            if ($exception !== $this->failure) {
                // A signal handler's. It may have cost the connection.
                $this->lost && trigger_error($this->error, E_USER_WARNING);
                throw $exception;
            }
        } finally {
            $this->busy = $nested;
            // Its trace may refer to this object, which would then not go when it is let go of.
            $this->failure = null;
            if ($async) {
                pcntl_async_signals(true);
                pcntl_signal_dispatch();
            }
        }
        trigger_error($this->error, E_USER_WARNING);
        return false;
    }

    /** Looks at what has come meanwhile, and connects again if the connection has ended without locks. */
    private function ready(): void
    {
        try {
            if ($this->connection !== null) {
                $this->read(0.0, fn (): bool => false);
            }
        } catch (RuntimeException $exception) {
            if ($exception !== $this->failure || $this->lost) {
                throw $exception;
            }
        }
        if ($this->connection === null) {
            $this->connect();
        }
    }

    private function connect(): void
    {
        $this->connection = $this->open();
        stream_set_blocking($this->connection, false);
        stream_set_timeout($this->connection, (int) self::ANSWER_SECONDS);
        $this->owner = getmypid();
        $this->proven = self::now();
        $this->proofLasts = INF;
        if (self::$objects === null) {
            self::$objects = new WeakMap();
            register_shutdown_function([self::class, 'atShutdown']);
        }
        self::$objects[$this] = true;
        // The original server does not answer this, so it is not waited for.
        $hello = ['client' => 'pkLockClient', 'version' => PHP_VERSION];
        $this->send(['command' => 'hello', 'parameters' => $hello, 'id' => 'hello']);
    }

    /** @return resource connected to the first address of the host that can be, each tried for its share of the time */
    private function open()
    {
        $context = stream_context_create(['socket' => ['tcp_nodelay' => true]]);
        $addresses = $this->addresses();
        $end = self::now() + self::CONNECT_SECONDS;
        $error = '';
        foreach ($addresses as $at => $address) {
            $share = ($end - self::now()) / (count($addresses) - $at);
            if ($at > 0 && $share <= 0) {
                break;
            }
            $share = max(0.001, $share);
            $flags = STREAM_CLIENT_CONNECT;
            $connection = @stream_socket_client($address, $no, $error, $share, $flags, $context);
            if ($connection !== false) {
                return $connection;
            }
        }
        $server = count($addresses) > 1 ? "$this->host, port $this->port" : $addresses[0];
        throw $this->fail("cannot connect to $server: $error");
    }

    /** @return non-empty-list<string> where to connect, as PHP's streams want it */
    private function addresses(): array
    {
        if (preg_match('#^unix:(?://)?(/.*)$#s', $this->host, $path)) {
            return ['unix://' . $path[1]];
        }
        $isAddress = substr_count($this->host, ':') > 1;
        $hosts = $isAddress ? ['[' . trim($this->host, '[]') . ']'] : $this->resolve($this->host);
        return array_map(fn (string $host): string => "tcp://$host:$this->port", $hosts);
    }

    /** @return non-empty-list<string> the addresses of a host, those of IPv6 in brackets; or the host, if unknown */
    protected function resolve(string $host): array
    {
        if (!function_exists('socket_addrinfo_lookup')) {
            // This one knows IPv4 alone. What else there is PHP finds by the name.
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
     * The same as ask(), for what says that a lock is held. A yes counts if the connection is alive after it has been
     * read: the process may have been stopped before, and the connection may have ended meanwhile, and the lock may be
     * another client's. An end comes behind the yes. If the network was cut there is no end, so the server must have
     * answered a request that was sent a short time ago.
     */
    private function askOfLock(string $command, array $parameters, float $seconds): ?array
    {
        $reply = $this->ask($command, $parameters, $seconds);
        if ($reply === null || ($reply['result']['status'] ?? null) !== 'ok') {
            return $reply;
        }
        $this->readAll();
        while (self::now() - $this->proven >= $this->proofLasts) {
            if ($this->ask('ping', [], self::ANSWER_SECONDS) === null) {
                throw $this->lose('the server does not answer');
            }
            $this->readAll();
        }
        return $reply;
    }

    /** Sends a request and waits for its reply; null if there is none in time. One that comes later is dropped. */
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
        $this->send(['command' => 'unlock'] + $this->named($name));
        $this->unlocks[$this->nextUnlock] = (string) $name;
        return $this->nextUnlock++;
    }

    /** Waits until this unlock is answered: `ok` or `notFound`. */
    private function answer(int $unlock): string
    {
        if (!$this->read(self::ANSWER_SECONDS, fn (): bool => !isset($this->unlocks[$unlock]))) {
            throw $this->fail('the server does not answer an unlock');
        }
        return $this->unlocked;
    }

    /** Handles what comes until it is done, or for so many seconds, and at least once what is there. */
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
                // A signal, or more streams than it can look at.
                usleep(1000);
            }
            $this->take();
            if (function_exists('pcntl_signal_dispatch')) {
                pcntl_signal_dispatch();
            }
        }
    }

    /** Handles all that has come, without waiting. */
    private function readAll(): void
    {
        do {
            while (($message = $this->receive()) !== null) {
                $this->handle($message);
            }
        } while ($this->take());
    }

    /** Takes in some of what has come, without waiting; false: nothing has. */
    private function take(): bool
    {
        $bytes = (string) @fread($this->connection, 65536);
        if ($bytes === '' && stream_get_meta_data($this->connection)['eof']) {
            throw $this->lose('the server has ended the connection');
        }
        $this->received .= $bytes;
        return $bytes !== '';
    }

    /** The next message, if all of it is there. */
    private function receive(): ?array
    {
        $length = strlen($this->received) < 4 ? 0 : unpack('N', $this->received)[1];
        if ($length > self::MESSAGE_MAX) {
            throw $this->lose($this->spoken() ?? 'the server does not speak the message protocol');
        }
        if (strlen($this->received) < 4 + $length) {
            return null;
        }
        $message = json_decode(substr($this->received, 4, $length), true);
        $this->received = substr($this->received, 4 + $length);
        return is_array($message) ? $message : throw $this->lose('the server sent what is no message');
    }

    /** What a server speaks that is none of the message protocol; null: that is not known. */
    private function spoken(): ?string
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
            $this->unlocked = is_string($message['result'] ?? null) ? $message['result'] : '';
            unset($this->held[reset($this->unlocks)], $this->unlocks[key($this->unlocks)]);
        }
    }

    /**
     * Lets the kernel find out that the server's machine is gone before the server, after its timeout, gives the
     * locks to others. The figures are from the description of the protocol.
     */
    private function keepAlive(mixed $timeout): void
    {
        $isTcp = !str_starts_with($this->host, 'unix:');
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
        // TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT, and TCP_RTO_MAX_MS, which only new kernels have
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
            // A server that has hung up may have said before what it speaks.
            stream_set_blocking($this->connection, false);
            $this->received .= (string) @fread($this->connection, 65536);
            throw $this->lose($this->spoken() ?? 'the request could not be sent');
        }
        stream_set_blocking($this->connection, false);
    }

    /** @return array<string, string> the name as parameters */
    private function named(mixed $name): array
    {
        if (is_array($name) || is_object($name) && !method_exists($name, '__toString')) {
            throw $this->fail('a name must be a string');
        }
        $name = (string) $name;
        return preg_match('//u', $name) ? ['lockName' => $name] : ['lockNameHex' => bin2hex($name)];
    }

    private function timeLimit(mixed $options): float
    {
        $limit = ((array) $options)['timeLimit'] ?? 30;
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

    /** Gives the connection up, and with it whatever was held. */
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
            // Sockets of PHP are not close-on-exec: a program started in the background has this one too, and would
            // keep the locks. Closing it is not enough.
            @stream_socket_shutdown($connection, STREAM_SHUT_RDWR);
        }
        fclose($connection);
    }

    /**
     * Not for use. PHP runs no destructors when memory or time was up, so the connections are ended here then, behind
     * everything else that is done at the end.
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
