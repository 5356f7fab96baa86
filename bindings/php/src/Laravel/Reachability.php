<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Closure;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DoubtException;
use Lockd\Exception\LockdException;
use Lockd\Exception\TimeoutException;
use Lockd\Internal\Deadline;
use Lockd\Message\Address;
use Lockd\Message\Rendezvous;

/**
 * Remembers, for all locks of this process, which servers have not answered in time. They are not
 * asked again for a while: otherwise each event of a schedule, and each lock of a request, would
 * wait the whole time limit again. A failure that comes at once delays nobody and is not
 * remembered, so a server that restarts is found at once. Knows the servers' addresses only.
 *
 * @internal
 */
final class Reachability
{
    /**
     * A server is not asked again for so many times as long as it has not answered. A failure is
     * remembered if it took at least one part in so many of the time limit.
     */
    private const FACTOR = 10.0;

    /**
     * Texts, because an exception's trace would keep what it refers to, such as locks.
     *
     * @var array<string, array{Deadline, string}> until when, and why, by the server's address
     */
    private static array $failures = [];

    /** @var list<string> the servers' addresses */
    private readonly array $servers;

    /**
     * @param ?string $url as for {@see \Lockd\Client::connect()}; null: unknown, then nothing is
     *     remembered
     * @param float $timeout for connecting and for every answer, in seconds
     */
    public function __construct(?string $url, private readonly float $timeout)
    {
        $this->servers = $url === null ? [] : array_keys(Address::parseList($url));
    }

    /**
     * Calls `$ask`, unless the server of that lock has not answered a short while ago.
     *
     * @template T
     * @param string $name of the lock on the server
     * @param Closure(): T $ask must not wait for other clients: that time would count as the server's
     * @return T
     * @throws ConnectException the server was not asked again
     * @throws LockdException what `$ask` throws
     */
    public function attempt(string $name, Closure $ask): mixed
    {
        if ($this->servers === []) {
            return $ask();
        }
        $server = Rendezvous::choose($this->servers, $name);
        [$pause, $reason] = self::$failures[$server] ?? [null, null];
        if ($pause !== null && !$pause->isOver()) {
            $left = ceil($pause->remaining());
            $text = "$reason (and it is not asked again for another $left s)";
            throw new ConnectException($text, isAbsence: true);
        }
        unset(self::$failures[$server]);
        $began = Deadline::now();
        try {
            return $ask();
        } catch (ConnectException | ConnectionLostException | DoubtException | TimeoutException $e) {
            $took = min(Deadline::now() - $began, $this->timeout);
            if (self::FACTOR * $took >= $this->timeout) {
                self::$failures[$server] = [Deadline::in(self::FACTOR * $took), $e->getMessage()];
            }
            throw $e;
        }
    }
}
