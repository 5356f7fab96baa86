<?php

/**
 * A drop-in replacement for `lockc`, the class through which PHP code uses the lock servers with
 * text protocols: lockd (port 2626) and glockd (port 9999), or a server for their clients.
 * `require` this file alone. It must not need any other file of the package.
 */

declare(strict_types=1);

/**
 * A connection to a lock server. It owns the locks acquired through it, which are freed when the
 * object is destroyed.
 *
 * It answers like the original class, with integers: 1 for yes and 0 for no, or the number of
 * holders of a shared lock. Without a connection lock() and unlock() answer 0, and is_locked()
 * answers true.
 *
 * Old code does not catch exceptions, so there are none. Every failure is answered as if there were
 * no connection. An E_USER_WARNING gives the reason once, and error() returns it again.
 *
 * When a connection is lost, its locks are lost. If locks were held, no call but connect() connects
 * again, so that code which believes that it holds them is told. If no lock was held, the next call
 * connects again, so that a worker survives a restart of its server.
 *
 * After a fork the connection belongs to the parent alone: a call in the child is answered as if
 * there were no connection. The child needs an object of its own, or calls connect() once more. It
 * should destroy its copy of this object: while the copy exists, the death of the parent does not
 * end the connection.
 *
 * The text protocols fold white space in names, and the `message` protocol does not. So if a name
 * has white space at an end, a tab, or two spaces in a row, clients of `message`, such as
 * pkLockClient, get another lock by that name. An E_USER_WARNING says so for the first such name of
 * an object.
 *
 * The server frees the locks of a client whose machine does not answer any more. With the text
 * protocols such a client cannot know that in time. A client on another machine than the server's
 * should use `message`.
 *
 * Signal handlers are deferred until a call has finished. If one throws then, the caller gets the
 * exception and not the answer.
 */
class lockc
{
    private const FATAL = E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR;
    private const WHITE = " \t\n\r\x0b\x0c";

    /**
     * A host name, an address, or `unix:/PATH`. Host and port take effect when the object connects
     * next.
     */
    public $host;
    public $port;
    /** How long to wait for a connection, in seconds. */
    public $timeout;
    /**
     * @var resource|false never a persistent stream, which would keep the locks after the request
     */
    public $fp = false;
    /** @var int the error of the last attempt to connect; 0: it did not fail */
    public $errno = 0;
    /** @var string the same error as text */
    public $errst = '';

    /** The id of the process that opened the connection. */
    private int $owner = 0;
    /**
     * @var array<string, true> the locks held through this connection: `x` or, if shared, `s`, then
     *     the name
     */
    private array $held = [];
    /**
     * Whether only connect() may connect, because locks were lost or the connection is the
     * parent's.
     */
    private bool $lost = false;
    /** Whether the reply to a request is outstanding. */
    private bool $isReplyOutstanding = false;
    /** Whether the server has answered anything on this connection. */
    private bool $hasAnswered = false;
    /**
     * For how long, in seconds, after an answered request was sent the server certainly has not
     * freed this client's locks: less than 12 s, the shortest time after which a server frees the
     * locks of a client that does not answer.
     */
    private float $proofLasts = 10.0;
    /** Whether the program has been warned of a name with white space that is folded. */
    private bool $hasWarnedOfFolding = false;
    private string $error = '';
    /** @var WeakMap<self, true>|null all objects that have been connected */
    private static ?WeakMap $objects = null;

    /**
     * Does not connect: the first call does, so that properties which are set before it take
     * effect.
     *
     * @param string $host a host name, an address, or `unix:/PATH`
     * @param int $port
     * @param float $timeout how long to wait for a connection, in seconds. The limit for replies is
     *     PHP's default_socket_timeout: the server answers at once
     */
    public function __construct($host = '127.0.0.1', $port = 2626, $timeout = 10)
    {
        $this->host = $host;
        $this->port = $port;
        $this->timeout = $timeout;
    }

    /**
     * Connects, unless there is a connection. All other methods connect by themselves, except when
     * locks were lost or after a fork. Then only this method connects, from its second call on: the
     * first call says that there is no connection.
     *
     * @return bool whether there is a connection
     */
    public function connect()
    {
        return $this->withSignalsDeferred(function (): bool {
            if ($this->lost) {
                $this->lost = false;
                $this->held = [];
            }
            return $this->isConnected();
        });
    }

    /**
     * Acquires the lock if it is free.
     *
     * @return int 1: this object holds it; for a shared lock the number of its holders. 0: this
     *     object does not hold it
     */
    public function lock(mixed $name, mixed $shared = false)
    {
        return $this->request('g', $name, (bool) $shared) ?? 0;
    }

    /** The same as lock(). */
    public function get(mixed $name, mixed $shared = false)
    {
        return $this->lock($name, $shared);
    }

    /** @return int 1: it is released. 0: there was nothing to release */
    public function unlock(mixed $name, mixed $shared = false)
    {
        return $this->request('r', $name, (bool) $shared) ?? 0;
    }

    /** The same as unlock(). */
    public function release(mixed $name, mixed $shared = false)
    {
        return $this->unlock($name, $shared);
    }

    /**
     * Whether the lock is held, by this connection or another.
     *
     * @return int|true 1 or 0; for a shared lock the number of its holders. True: there is no
     *     connection, and the lock may be held
     */
    public function is_locked(mixed $name, mixed $shared = false)
    {
        return $this->request('i', $name, (bool) $shared) ?? true;
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
     * Why a call was answered without an answer from the server; empty if that has not happened.
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

    /** The number in the server's reply; null: there is no reply. */
    private function request(string $command, mixed $name, bool $shared): ?int
    {
        if (is_array($name) || is_object($name) && !method_exists($name, '__toString')) {
            $this->warn('a name must be a string');
            return null;
        }
        // The server folds names too. It is done here to know which names mean the same lock.
        $folded = preg_replace('/[ \t\r\x0b\x0c]+/', ' ', trim((string) $name, self::WHITE));
        if (strpbrk($folded, "\n\0") !== false) {
            // Text after a newline would be a command of its own, and its reply would be taken for
            // that of the next request.
            $this->warn('a name must not contain a newline or a NUL');
            return null;
        }
        if ($folded !== (string) $name && !$this->hasWarnedOfFolding) {
            $this->hasWarnedOfFolding = true;
            // Warn before the request is sent, because the program may turn warnings into
            // exceptions.
            $start = substr($folded, 0, 80);
            trigger_error("lockc: the text protocols fold white space: this name means the lock \"$start\", "
                . 'and another lock for clients of the message protocol', E_USER_WARNING);
        }
        return $this->withSignalsDeferred(
            fn (): ?int => $this->isConnected() ? $this->ask($command, $folded, $shared) : null
        );
    }

    /**
     * Defers signal handlers during the call: if one threw, the reply would be read as that of the
     * next request.
     */
    private function withSignalsDeferred(callable $call): mixed
    {
        $async = function_exists('pcntl_async_signals') && pcntl_async_signals();
        try {
            $async && pcntl_async_signals(false);
            return $call();
        } finally {
            if ($async) {
                pcntl_async_signals(true);
                pcntl_signal_dispatch();
            }
        }
    }

    private function ask(string $command, string $name, bool $shared): ?int
    {
        $space = $shared ? 's' : '';
        $asked = hrtime(true);
        $number = $this->exchange("$space$command $name");
        if ($number === null || ($command !== 'r' && !$this->isAlive($asked, "{$space}i $name"))) {
            return null;
        }
        $lock = ($shared ? 's' : 'x') . $name;
        if ($command === 'r') {
            unset($this->held[$lock]);
        } elseif ($command === 'g' && $number > 0) {
            $this->held[$lock] = true;
        }
        return $shared ? $number : min($number, 1);
    }

    /**
     * Sends a line and reads the reply's line. In both protocols the reply begins with the number.
     */
    private function exchange(string $line): ?int
    {
        $this->isReplyOutstanding = true;
        if (@fwrite($this->fp, "$line\n") !== strlen($line) + 1) {
            $this->lose('the request could not be sent');
            return null;
        }
        // Apart from the name, a reply is short.
        $reply = (string) @fgets($this->fp, strlen($line) + 256);
        if (!preg_match('/^([0-9]{1,9}) (?!Refused:).*\n$/sD', $reply, $parts)) {
            // A reply that comes later would be read as that of the next request, so the stream
            // cannot be used any more.
            $this->lose($this->reason($reply));
            return null;
        }
        $this->isReplyOutstanding = false;
        $this->hasAnswered = true;
        return (int) $parts[1];
    }

    /**
     * Whether the connection is alive after a reply has been read. The process may have been
     * stopped before it read. Then the connection may have ended, and another client may hold the
     * lock. The end of a connection arrives after the reply. If the network was cut, no end
     * arrives: so the request must have been sent only a short time ago, or this asks again.
     */
    private function isAlive(int $asked, string $question): bool
    {
        while (true) {
            $problem = $this->problem();
            if ($problem !== '') {
                $this->lose($problem);
                return false;
            }
            if ((hrtime(true) - $asked) / 1e9 < $this->proofLasts) {
                return true;
            }
            $asked = hrtime(true);
            if ($this->exchange($question) === null) {
                return false;
            }
        }
    }

    /** Says why this reply is not valid. */
    private function reason(string $reply): string
    {
        $wanted = 'this class needs a port with the text protocol of lockd (2626) or of glockd (9999)';
        if ($reply !== '') {
            $line = addcslashes(trim(substr($reply, 0, 80)), "\0..\37\177");
            return match (true) {
                preg_match('/^[\x15\x16]\x03/', $reply) === 1 =>
                    "the server speaks TLS there, which this class does not: $wanted, without TLS",
                str_starts_with($reply, 'HTTP/1') => "the server speaks HTTP there (\"$line\"): $wanted",
                preg_match('/^\0...\{/s', $reply) === 1 => "the server speaks the message protocol there: $wanted",
                str_starts_with($reply, '0 Refused: this port speaks ') =>
                    "the server says \"$line\": $wanted, without TLS",
                default => "the server sent something unexpected: $line",
            };
        }
        if (!stream_get_meta_data($this->fp)['timed_out']) {
            return 'the server has ended the connection';
        }
        $waited = 'no reply within ' . ini_get('default_socket_timeout') . ' seconds';
        return $this->hasAnswered ? $waited : "$waited: the server hangs, or speaks another protocol there: $wanted";
    }

    /** Whether there is a connection for a request. Connects if that is allowed. */
    private function isConnected(): bool
    {
        if (!is_resource($this->fp)) {
            // Either never connected, or the program has closed the stream itself and knows that
            // its locks are gone.
            $this->fp = false;
            $this->held = $this->lost ? $this->held : [];
            $this->isReplyOutstanding = false;
            return !$this->lost && $this->open();
        }
        if ($this->owner !== getmypid()) {
            $this->end();
            $this->lost = true;
            return $this->warn('the connection is that of the parent process, which alone may use it');
        }
        $problem = $this->problem();
        if ($problem === '') {
            return true;
        }
        if ($this->held !== []) {
            $this->lose($problem);
            return false;
        }
        $this->end();
        return $this->open();
    }

    /**
     * Checks, without waiting, for what must not be there before a request: the end of the
     * connection, or a reply that has arrived or is still to come. Returns the reason; empty: there
     * is no problem.
     */
    private function problem(): string
    {
        if ($this->isReplyOutstanding) {
            // The last reply came too late, or an error handler has thrown: that reply would be
            // read as the next one.
            return 'a request was broken off';
        }
        stream_set_blocking($this->fp, false);
        $stray = (string) @fread($this->fp, 80);
        stream_set_blocking($this->fp, true);
        return $stray === '' && !stream_get_meta_data($this->fp)['eof'] ? '' : $this->reason($stray);
    }

    /**
     * Connects: tries every address of the host, each for an equal share of the time that is left.
     */
    private function open(): bool
    {
        $context = stream_context_create(['socket' => ['tcp_nodelay' => true]]);
        $addresses = $this->addresses();
        $end = hrtime(true) / 1e9 + ((float) $this->timeout > 0 ? (float) $this->timeout : 10.0);
        foreach ($addresses as $at => $address) {
            $share = ($end - hrtime(true) / 1e9) / (count($addresses) - $at);
            if ($at > 0 && $share <= 0) {
                break;
            }
            [$this->errno, $this->errst] = [0, ''];
            $flags = STREAM_CLIENT_CONNECT;
            $share = max(0.001, $share);
            $this->fp = @stream_socket_client($address, $this->errno, $this->errst, $share, $flags, $context);
            if ($this->fp !== false) {
                break;
            }
        }
        if ($this->fp === false) {
            $server = count($addresses) > 1 ? "$this->host, port $this->port" : $addresses[0];
            return $this->warn("cannot connect to $server: $this->errst");
        }
        $this->hasAnswered = false;
        $this->owner = getmypid();
        if (self::$objects === null) {
            self::$objects = new WeakMap();
            register_shutdown_function([self::class, 'atShutdown']);
        }
        self::$objects[$this] = true;
        return true;
    }

    /** @return non-empty-list<string> the addresses to try, in the form that PHP's streams take */
    private function addresses(): array
    {
        $host = preg_replace('#^tcp://#', '', trim((string) $this->host));
        if (preg_match('#^unix:(?://)?(/.*)$#s', $host, $path)) {
            return ['unix://' . $path[1]];
        }
        $hosts = substr_count($host, ':') > 1 ? ['[' . trim($host, '[]') . ']'] : $this->resolve($host);
        return array_map(fn (string $host): string => "tcp://$host:" . (int) $this->port, $hosts);
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

    /** Ends the connection. All locks held on it are lost. */
    private function lose(string $reason): void
    {
        $this->end();
        $this->lost = $this->held !== [];
        $this->warn($this->lost ? "$reason; all its locks are lost" : $reason);
    }

    /**
     * Warns; always returns false. Called when the object's state is complete, because the program
     * may turn warnings into exceptions.
     */
    private function warn(string $reason): bool
    {
        $this->error = "lockc: $reason";
        trigger_error($this->error, E_USER_WARNING);
        return false;
    }

    private function end(): void
    {
        $connection = $this->fp;
        $this->fp = false;
        $this->isReplyOutstanding = false;
        if (!is_resource($connection)) {
            return;
        }
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
        } elseif ($error['type'] & (self::FATAL) && !str_starts_with($error['message'], 'Uncaught ')) {
            foreach (self::$objects as $object => $connected) {
                $object->end();
            }
        }
    }
}
