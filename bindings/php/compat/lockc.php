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
 * It answers as the original class does: with integers, 1 for yes and 0 for no, or the number of holders of a shared
 * lock. Without a connection lock() and unlock() answer 0, and is_locked() answers true.
 *
 * Old code does not catch exceptions, so there are none. Whatever goes wrong, the answer is the one without a
 * connection, an E_USER_WARNING says once what it was, and error() says it again.
 *
 * A lost connection has lost its locks. If locks were held, no call connects again from then on but connect(), so that
 * the code which believes to hold them finds out. If no lock was held, the next call connects again, so that a worker
 * outlives a restart of its server.
 *
 * After a fork the connection belongs to the parent alone: a call in the child is answered as without a connection.
 * The child needs an object of its own, or calls connect() once more. It should let go of its copy of this object:
 * while the copy exists, the death of the parent does not end the connection.
 *
 * The text protocols fold white space in names, and the `message` protocol does not. So a name with white space at an
 * end, a tab, or two spaces in a row is one lock here and another one for clients of `message`, pkLockClient among
 * them. An E_USER_WARNING says so for the first such name of an object.
 *
 * The server frees the locks of a client whose machine does not answer any more, and the text protocols have no way
 * for that client to know in time. A client on another machine than the server's is better off with `message`.
 *
 * Signal handlers wait until a call is done. One that throws then takes the place of its answer.
 */
class lockc
{
    private const FATAL = E_ERROR | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR;
    private const WHITE = " \t\n\r\x0b\x0c";

    /** A name, an address, or `unix:/PATH`. It counts when the object connects next, and so does the port. */
    public $host;
    public $port;
    /** How long to wait for a connection, in seconds. */
    public $timeout;
    /** @var resource|false never a persistent one: that would keep the locks beyond the request */
    public $fp = false;
    /** @var int what the last attempt to connect failed with; 0: it did not fail */
    public $errno = 0;
    /** @var string the same as text */
    public $errst = '';

    /** The process whose connection it is. */
    private int $owner = 0;
    /** @var array<string, true> the locks held through this connection, shared ones with an `s` in front */
    private array $held = [];
    /** Whether no call but connect() may connect, since locks were lost, or the connection is the parent's. */
    private bool $lost = false;
    /** Whether the reply to a request is outstanding. */
    private bool $asking = false;
    /** Whether the server has answered anything on this connection. */
    private bool $heard = false;
    /**
     * How long a request that was answered proves that the server has not freed what is held, in seconds: less than the
     * shortest time, 12 s, after which a server frees the locks of a client that does not answer.
     */
    private float $proofLasts = 10.0;
    /** Whether the program has been warned of a name with white space that is folded. */
    private bool $hasWarnedOfFolding = false;
    private string $error = '';
    /** @var WeakMap<self, true>|null all that have been connected */
    private static ?WeakMap $objects = null;

    /**
     * Connects with the first call and not here: what is set after this counts, too.
     *
     * @param string $host a name, an address, or `unix:/PATH`
     * @param int $port
     * @param float $timeout how long to wait for a connection, in seconds. For a reply the limit is PHP's own,
     *     default_socket_timeout: the server answers at once
     */
    public function __construct($host = '127.0.0.1', $port = 2626, $timeout = 10)
    {
        $this->host = $host;
        $this->port = $port;
        $this->timeout = $timeout;
    }

    /**
     * Connects, unless there is a connection. All other methods do so by themselves; but when locks were lost, or after
     * a fork, only this one does, from the second call on: the first one says that there is no connection.
     *
     * @return bool whether there is a connection
     */
    public function connect()
    {
        return $this->undisturbed(function (): bool {
            if ($this->lost) {
                $this->lost = false;
                $this->held = [];
            }
            return $this->isConnected();
        });
    }

    /**
     * Gets the lock if it is to be had at once.
     *
     * @return int 1: this object holds it; for a shared lock the number of its holders. 0: it does not
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
     * Whether anybody holds the lock, this connection included.
     *
     * @return int|true 1 or 0; for a shared lock the number of its holders. True: there is no connection, so that
     *     nobody can say that it is free
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
     * Why a call was answered without the server's word; empty if that has not happened.
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

    /** The number in the server's reply; null: there is none. */
    private function request(string $command, mixed $name, bool $shared): ?int
    {
        if (is_array($name) || is_object($name) && !method_exists($name, '__toString')) {
            $this->warn('a name must be a string');
            return null;
        }
        // The server would do the same; here it has to be known which names are one and the same lock.
        $folded = preg_replace('/[ \t\r\x0b\x0c]+/', ' ', trim((string) $name, self::WHITE));
        if (strpbrk($folded, "\n\0") !== false) {
            // What comes after a newline would be a command of its own, and its reply be taken for another's.
            $this->warn('a name must not contain a newline or a NUL');
            return null;
        }
        if ($folded !== (string) $name && !$this->hasWarnedOfFolding) {
            $this->hasWarnedOfFolding = true;
            // Before anything is asked: the program may turn warnings into exceptions.
            $start = substr($folded, 0, 80);
            trigger_error("lockc: the text protocols fold white space: this is the lock \"$start\", and another one "
                . 'than a client of the message protocol gets by the same name', E_USER_WARNING);
        }
        return $this->undisturbed(fn (): ?int => $this->isConnected() ? $this->ask($command, $folded, $shared) : null);
    }

    /** Calls it with no signal handler in between: one that throws would leave a reply to the next request. */
    private function undisturbed(callable $call): mixed
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

    /** Sends a line, and reads the one of the reply. Its first number decides, whichever of the two protocols it is. */
    private function exchange(string $line): ?int
    {
        $this->asking = true;
        if (@fwrite($this->fp, "$line\n") !== strlen($line) + 1) {
            $this->lose('the request could not be sent');
            return null;
        }
        // A reply repeats the name at most.
        $reply = (string) @fgets($this->fp, strlen($line) + 256);
        if (!preg_match('/^([0-9]{1,9}) (?!Refused:).*\n$/sD', $reply, $parts)) {
            // What comes later would be taken for the reply to the next request: the stream is of no use any more.
            $this->lose($this->reason($reply));
            return null;
        }
        $this->asking = false;
        $this->heard = true;
        return (int) $parts[1];
    }

    /**
     * Whether the connection is alive after a reply has been read. The process may have been stopped before it read:
     * then the connection may have ended, and the lock may be another client's. An end comes behind the reply. If the
     * network was cut there is no end, so what was asked must have been asked a short time ago; else this asks again.
     */
    private function isAlive(int $asked, string $question): bool
    {
        while (true) {
            $trouble = $this->trouble();
            if ($trouble !== '') {
                $this->lose($trouble);
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

    /** What is wrong with this for a reply. */
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
        return $this->heard ? $waited : "$waited: the server hangs, or speaks another protocol there: $wanted";
    }

    /** Whether there is a connection to ask on, if need be a new one. */
    private function isConnected(): bool
    {
        if (!is_resource($this->fp)) {
            // Perhaps the program has closed it, and knows what it has let go of so.
            $this->fp = false;
            $this->held = $this->lost ? $this->held : [];
            $this->asking = false;
            return !$this->lost && $this->open();
        }
        if ($this->owner !== getmypid()) {
            $this->end();
            $this->lost = true;
            return $this->warn('the connection is that of the parent process, which alone may use it');
        }
        $trouble = $this->trouble();
        if ($trouble === '') {
            return true;
        }
        if ($this->held !== []) {
            $this->lose($trouble);
            return false;
        }
        $this->end();
        return $this->open();
    }

    /** Looks, without waiting, for what must not be there before a request: an end, or a reply, come or to come. */
    private function trouble(): string
    {
        if ($this->asking) {
            // Time was up, or an error handler has thrown: the next request would take that reply for its own.
            return 'a request was broken off';
        }
        stream_set_blocking($this->fp, false);
        $stray = (string) @fread($this->fp, 80);
        stream_set_blocking($this->fp, true);
        return $stray === '' && !stream_get_meta_data($this->fp)['eof'] ? '' : $this->reason($stray);
    }

    /** Connects: tries every address of the host, each for its share of the time that is left. */
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
        $this->heard = false;
        $this->owner = getmypid();
        if (self::$objects === null) {
            self::$objects = new WeakMap();
            register_shutdown_function([self::class, 'atShutdown']);
        }
        self::$objects[$this] = true;
        return true;
    }

    /** @return non-empty-list<string> where to connect, as PHP's streams want it */
    private function addresses(): array
    {
        $host = preg_replace('#^tcp://#', '', trim((string) $this->host));
        if (preg_match('#^unix:(?://)?(/.*)$#s', $host, $path)) {
            return ['unix://' . $path[1]];
        }
        $hosts = substr_count($host, ':') > 1 ? ['[' . trim($host, '[]') . ']'] : $this->resolve($host);
        return array_map(fn (string $host): string => "tcp://$host:" . (int) $this->port, $hosts);
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

    /** Gives the connection up, and with it whatever was held. */
    private function lose(string $reason): void
    {
        $this->end();
        $this->lost = $this->held !== [];
        $this->warn($this->lost ? "$reason; all its locks are lost" : $reason);
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
        $connection = $this->fp;
        $this->fp = false;
        $this->asking = false;
        if (!is_resource($connection)) {
            return;
        }
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
