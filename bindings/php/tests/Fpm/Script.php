<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use Closure;
use Lockd\Client;
use Lockd\Lock;

/** The script of a request, in a worker of php-fpm: says what it has come to, takes the lock, and ends as told. */
final class Script
{
    /** Seconds; nothing that a test waits for. */
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

    /** Takes the lock, and returns when somebody waits for it, if it is said that somebody will. */
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

    /** The lock must not be free before. */
    public function isAlive(): void
    {
        // In place, and of one length, so that nobody finds half of it, wherever this process ends.
        $this->alive ??= fopen($this->query['alive'], 'r+');
        rewind($this->alive);
        fwrite($this->alive, sprintf('%020d', hrtime(true)));
    }

    /** Until PHP finds that nobody listens. */
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

    /** Has something done in the first of the destructors that run when the script is over. */
    public function destroy(Closure $do): void
    {
        // The last global variable is the first to go.
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
