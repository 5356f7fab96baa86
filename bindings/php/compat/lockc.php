<?php

/**
 * A drop-in `lockc`, the class by which PHP code talks to the lock servers with the text protocols: to lockd (port
 * 2626) and glockd (port 9999), or to what listens for their clients. `require` this file alone; it needs nothing
 * else of the package, and must not.
 */

declare(strict_types=1);

/**
 * A connection to a lock server, and with it the owner of the locks got through it. They are freed when the object
 * goes.
 *
 * Old code does not catch exceptions, so there are none. Whatever goes wrong, the answer is false, an E_USER_WARNING
 * says once what it was, and error() says it again.
 *
 * A lost connection has lost its locks. If locks were held, every call from then on is false, and only a new object
 * connects again: whoever believes to hold them must find out. If none was held, the next call connects again, so
 * that a worker outlives a restart of its server.
 *
 * After a fork the connection is the parent's alone: each call in the child is false. The child needs an object of
 * its own, and should let go of its copy of this one: while the copy is there, the death of the parent does not end
 * the connection.
 *
 * The server frees the locks of a client whose machine does not answer any more, and the text protocols have no way
 * for that client to know in time. A client on another machine than the server's is better off with `message`.
 *
 * Signal handlers wait until a call is done. One that throws then takes the place of its answer.
 */
class lockc
{
    private const FATAL = E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR;
    private string $address;
    private float $timeout;
    /** @var resource|null never a persistent one: that would keep the locks beyond the request */
    private $connection = null;
    /** The process whose connection it is. */
    private int $owner = 0;
    /** @var array<string, true> the locks held through this connection, shared ones with an `s` in front */
    private array $held = [];
    /** Whether there must be no other connection, since locks were lost with this one, or it is the parent's. */
    private bool $lost = false;
    /** Whether the reply to a request is outstanding. */
    private bool $asking = false;
    private string $error = '';
    /** @var WeakMap<self, true>|null all that have been connected */
    private static ?WeakMap $objects = null;

    /**
     * Connects with the first call and not here, since a constructor could only throw what old code does not catch.
     *
     * @param string $host a name, an address, or `unix:/PATH`
     * @param int $port
     * @param float $timeout seconds to wait for the connection, and for each reply; the server never makes one wait
     */
    public function __construct($host = '127.0.0.1', $port = 2626, $timeout = 10)
    {
        $host = preg_replace('#^tcp://#', '', trim((string) $host));
        if (preg_match('#^unix:(?://)?(/.*)$#s', $host, $path)) {
            $this->address = 'unix://' . $path[1];
        } else {
            $this->address = 'tcp://' . (substr_count($host, ':') > 1 ? '[' . trim($host, '[]') . ']' : $host);
            $this->address .= ':' . (int) $port;
        }
        $this->timeout = (float) $timeout > 0 ? (float) $timeout : 10.0;
    }

    /**
     * Gets the lock if it is to be had at once.
     *
     * @return bool|int for a shared lock the number of its holders, 0 if it is refused
     */
    public function lock(mixed $name, mixed $shared = false)
    {
        return $this->request('g', $name, (bool) $shared);
    }

    /** The same as lock(). */
    public function get(mixed $name, mixed $shared = false)
    {
        return $this->lock($name, $shared);
    }

    /** @return bool whether there was something to release */
    public function unlock(mixed $name, mixed $shared = false)
    {
        return (bool) $this->request('r', $name, (bool) $shared);
    }

    /** The same as unlock(). */
    public function release(mixed $name, mixed $shared = false)
    {
        return $this->unlock($name, $shared);
    }

    /**
     * Whether anybody holds the lock, this connection included.
     *
     * @return bool|int for a shared lock the number of its holders
     */
    public function is_locked(mixed $name, mixed $shared = false)
    {
        return $this->request('i', $name, (bool) $shared);
    }

    /** The same as is_locked(). */
    public function check(mixed $name, mixed $shared = false)
    {
        return $this->is_locked($name, $shared);
    }

    /** The same as is_locked(). */
    public function inspect(mixed $name, mixed $shared = false)
    {
        return $this->is_locked($name, $shared);
    }

    /**
     * Why a call was false although the server has not said no; empty if that has not happened.
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

    private function request(string $command, mixed $name, bool $shared): bool|int
    {
        if (is_array($name) || is_object($name) && !method_exists($name, '__toString')) {
            return $this->warn('a name must be a string');
        }
        // The server would do the same; here it has to be known which names are one and the same lock.
        $name = preg_replace('/[ \t\r\x0b\x0c]+/', ' ', trim((string) $name, " \t\n\r\x0b\x0c"));
        if (strpbrk($name, "\n\0") !== false) {
            // What stands behind a newline would be a command of its own, and its reply be taken for another's.
            return $this->warn('a name must not contain a newline or a NUL');
        }
        $async = function_exists('pcntl_async_signals') && pcntl_async_signals();
        try {
            // A signal handler that throws before the reply is read would leave it to the next request.
            $async && pcntl_async_signals(false);
            return $this->connected() ? $this->ask($command, $name, $shared) : false;
        } finally {
            if ($async) {
                pcntl_async_signals(true);
                pcntl_signal_dispatch();
            }
        }
    }

    /** Asks, and reads the one line of the reply. Its first number decides, whichever of the two protocols it is. */
    private function ask(string $command, string $name, bool $shared): bool|int
    {
        $line = ($shared ? 's' : '') . "$command $name\n";
        $this->asking = true;
        if (@fwrite($this->connection, $line) !== strlen($line)) {
            return $this->lose('the request could not be sent');
        }
        // A reply repeats the name at most.
        $reply = (string) @fgets($this->connection, strlen($line) + 256);
        if (!preg_match('/^([0-9]{1,9}) (?!Refused:).*\n$/sD', $reply, $parts)) {
            // What comes later would be taken for the reply to the next request: the stream is of no use any more.
            return $this->lose($this->reason($reply));
        }
        $this->asking = false;
        $number = (int) $parts[1];
        $lock = ($shared ? 's' : 'x') . $name;
        if ($command === 'r') {
            unset($this->held[$lock]);
        } elseif ($command === 'g' && $number > 0) {
            $this->held[$lock] = true;
        }
        return $shared ? $number : $number > 0;
    }

    /** What is wrong with this for a reply. */
    private function reason(string $reply): string
    {
        if ($reply !== '') {
            return 'the server sent something unexpected: ' . trim(substr($reply, 0, 80));
        }
        $waited = stream_get_meta_data($this->connection)['timed_out'];
        return $waited ? "no reply within {$this->timeout} seconds" : 'the server has ended the connection';
    }

    /** Whether there is a connection to ask on, if need be a new one. */
    private function connected(): bool
    {
        if ($this->connection !== null && $this->owner !== getmypid()) {
            $this->end();
            $this->lost = true;
            return $this->warn('the connection is that of the parent process, which alone may use it');
        }
        if ($this->connection !== null && ($trouble = $this->trouble()) !== '') {
            if ($this->held !== []) {
                return $this->lose($trouble);
            }
            $this->end();
        }
        return !$this->lost && ($this->connection !== null || $this->connect());
    }

    /** Looks, without waiting, for what must not be there before a request: an end, or a reply, come or to come. */
    private function trouble(): string
    {
        if ($this->asking) {
            // Time was up, or an error handler has thrown: the next request would take that reply for its own.
            return 'a request was broken off';
        }
        stream_set_blocking($this->connection, false);
        $stray = (string) @fread($this->connection, 80);
        stream_set_blocking($this->connection, true);
        return $stray === '' && !stream_get_meta_data($this->connection)['eof'] ? '' : $this->reason($stray);
    }

    private function connect(): bool
    {
        $context = stream_context_create(['socket' => ['tcp_nodelay' => true]]);
        $flags = STREAM_CLIENT_CONNECT;
        $connection = @stream_socket_client($this->address, $number, $error, $this->timeout, $flags, $context);
        if ($connection === false) {
            return $this->warn("cannot connect to {$this->address}: $error");
        }
        stream_set_timeout($connection, (int) $this->timeout, (int) (fmod($this->timeout, 1) * 1e6));
        $this->connection = $connection;
        $this->owner = getmypid();
        if (self::$objects === null) {
            self::$objects = new WeakMap();
            register_shutdown_function([self::class, 'atShutdown']);
        }
        self::$objects[$this] = true;
        return true;
    }

    /** Gives the connection up, and with it whatever was held. Always false. */
    private function lose(string $reason): bool
    {
        $this->end();
        $this->lost = $this->held !== [];
        return $this->warn($this->lost ? "$reason; all its locks are lost" : $reason);
    }

    /** Comes last, when all is in order: the program may turn warnings into exceptions. Always false. */
    private function warn(string $reason): bool
    {
        $this->error = "lockc: $reason";
        trigger_error($this->error, E_USER_WARNING);
        return false;
    }

    private function end(): void
    {
        if ($this->connection === null) {
            return;
        }
        $connection = $this->connection;
        $this->connection = null;
        $this->asking = false;
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
        } elseif ($error['type'] & (self::FATAL) && !str_starts_with($error['message'], 'Uncaught ')) {
            foreach (self::$objects as $object => $connected) {
                $object->end();
            }
        }
    }
}
