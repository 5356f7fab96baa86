<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use Closure;
use Lockd\Client;
use Lockd\Lock;

/**
 * The script of a request in a worker of php-fpm: reports its progress, acquires the lock, and ends
 * as told.
 */
final class Script
{
    /** In seconds, longer than any test waits. */
    private const LONG = 30;

    /** @var ?resource */
    private $alive = null;

    /** @param array<string, string> $query */
    public function __construct(private readonly array $query)
    {
    }

    public function ending(): Ending
    {
        return Endings::named($this->query['ending']);
    }

    public function connect(): Client
    {
        return match ($this->query['transport']) {
            'streams' => Client::connect($this->query['server']),
            'FFI' => Client::connectByFfi($this->query['server']),
        };
    }

    /** Acquires the lock. If the query has `waited`, returns only when the lock has a waiter. */
    public function acquire(Client $client): ?Lock
    {
        if (isset($this->query['limit'])) {
            set_time_limit((int) $this->query['limit']);
        }
        $this->say('asks', (string) getmypid());
        $lock = $client->acquire($this->query['name'], (float) ($this->query['timeout'] ?? INF));
        $this->say($lock === null ? 'without' : 'holds', (string) getmypid());
        if ($this->ending()->background) {
            $this->say('background', (string) exec('exec sleep ' . self::LONG . ' >/dev/null 2>&1 & echo $!'));
        }
        $waited = isset($this->query['waited']);
        while ($waited && $client->inspect($this->query['name'])->waiters === 0) {
            usleep(1000);
        }
        $this->isAlive();
        return $lock;
    }

    public function say(string $word, string $what): void
    {
        $this->isAlive();
        echo "$word $what\n";
        if (ob_get_level() > 0) {
            ob_flush();
        }
        flush();
    }

    /** Notes the present time in a file: the lock must not be free before it. */
    public function isAlive(): void
    {
        // Overwrite it in place with the same length, so that a reader never finds half of it,
        // whenever this process ends.
        $this->alive ??= fopen($this->query['alive'], 'r+');
        rewind($this->alive);
        fwrite($this->alive, sprintf('%020d', hrtime(true)));
    }

    /** Sends lines until PHP notices that the client has disconnected. */
    public function talk(): void
    {
        for ($end = time() + self::LONG; time() < $end;) {
            $this->say('goes', 'on');
            usleep(1000);
        }
    }

    public function idle(): void
    {
        for ($end = time() + self::LONG; time() < $end;) {
            $this->isAlive();
            usleep(1000);
        }
    }

    /** Runs a function in the first destructor that PHP calls at the end of the script. */
    public function destroy(Closure $do): void
    {
        // PHP destroys the last global variable first.
        $GLOBALS['last'] = new class ($do) {
            public function __construct(private readonly Closure $do)
            {
            }

            public function __destruct()
            {
                ($this->do)();
            }
        };
    }
}
