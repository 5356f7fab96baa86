<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use Lockd\Client;
use Lockd\Lock;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use RuntimeException;

/**
 * Lets requests end over one transport, and measures when their locks are free: for a waiting
 * client, and for the next request to the same worker.
 */
final class Trial
{
    private const SCRIPT = __DIR__ . '/request.php';

    /** The limit for "at once", in seconds, for loaded machines. */
    private const AT_ONCE = 5.0;

    /** How long to check that something does not happen at once, in seconds. */
    private const A_WHILE = 0.7;

    /** How long a request may take to end, in seconds. */
    private const PATIENCE = 20.0;

    private readonly Client $client;
    /** The file in which a script notes the time when it was last alive. */
    private readonly string $alive;
    private int $names = 0;
    private string $name = '';
    /** The background process that a request has left. */
    private ?int $background = null;

    public function __construct(
        private readonly Server $server,
        private readonly Fpm $fpm,
        private readonly string $transport,
    ) {
        $this->client = Client::connect($server->tcp());
        $this->alive = sys_get_temp_dir() . '/lockd-alive-' . bin2hex(random_bytes(6));
        touch($this->alive);
        chmod($this->alive, 0666);
    }

    /** Runs one ending and returns the result. Throws if the result is not the expected one. */
    public function run(Ending $ending): string
    {
        $this->name = $this->transport . '/' . ++$this->names;
        $freed = $this->transport === 'FFI' ? $ending->ffi : $ending->streams;
        $result = $ending->waits ? $this->waiting($ending, $freed) : $this->holding($ending, $freed);
        return $freed === Freed::ByTheNextRequest ? 'by the next request' : $result;
    }

    private function holding(Ending $ending, Freed $freed): string
    {
        $request = $this->request($ending, ['waited' => 'yes', 'timeout' => '0']);
        $worker = $request->expect('holds');
        if ($ending->background) {
            $this->background = (int) $request->expect('background');
        }
        if ($ending->hangsUp) {
            $request->hangUp();
        }
        if ($freed === Freed::AtOnce) {
            $result = $this->freed($this->client->acquire($this->name, self::PATIENCE));
        } elseif ($freed === Freed::WithTheBackground) {
            $result = $this->freedWithTheBackground();
        } else {
            $this->staysHeld();
            $request->answer();
            $this->staysHeld();
            $result = '';
        }
        $this->servesOn($ending, $worker);
        $this->endBackground();
        return $result;
    }

    private function waiting(Ending $ending, Freed $freed): string
    {
        $lock = $this->client->acquire($this->name, 0.0) ?? throw new RuntimeException('it is held already');
        $request = $this->request($ending, []);
        $worker = $request->expect('asks');
        Deadline::until('the request waits', fn (): bool => $this->waiters() === 1);
        if ($ending->signal !== null) {
            posix_kill((int) $worker, $ending->signal);
        }
        if ($ending->hangsUp) {
            $request->hangUp();
        }
        if ($freed === Freed::WhenGranted) {
            usleep((int) (self::A_WHILE * 1e6));
            if ($this->waiters() === 0) {
                throw new RuntimeException('it has stopped waiting, which is better than expected');
            }
            $lock->release();
            $result = $this->freed($this->client->acquire($this->name, self::PATIENCE)) . ' after its turn';
        } else {
            $request->answer();
            $end = hrtime(true);
            Deadline::until('the request has left the queue', fn (): bool => $this->waiters() === 0);
            $result = self::milliseconds($end, hrtime(true));
            $lock->release();
        }
        $this->servesOn($ending, $worker);
        return $result;
    }

    /** A script may wait for longer than its time limit, which counts processor time only. */
    public function outwaits(): string
    {
        $this->name = $this->transport . '/' . ++$this->names;
        $lock = $this->client->acquire($this->name, 0.0) ?? throw new RuntimeException('it is held already');
        $request = $this->request(Endings::all()[0], ['limit' => '1', 'timeout' => '2']);
        $request->expect('without');
        $request->answer();
        $lock->release();
        return 'waits on';
    }

    private function waiters(): int
    {
        return $this->client->inspect($this->name)->waiters;
    }

    /** The time from the holder's last sign of life to this grant. */
    private function freed(?Lock $lock): string
    {
        $now = hrtime(true);
        if ($lock === null) {
            throw new RuntimeException('held for ' . self::PATIENCE . ' s, and is still held');
        }
        return self::milliseconds((int) file_get_contents($this->alive), $now);
    }

    private static function milliseconds(int $from, int $to): string
    {
        $milliseconds = sprintf('%.1f ms', ($to - $from) / 1e6);
        if ($to < $from) {
            throw new RuntimeException("free before its end: $milliseconds");
        }
        if ($to - $from > self::AT_ONCE * 1e9) {
            throw new RuntimeException("only after $milliseconds");
        }
        return $milliseconds;
    }

    private function staysHeld(): void
    {
        if ($this->client->acquire($this->name, self::A_WHILE) !== null) {
            throw new RuntimeException('free at once, which is better than expected');
        }
    }

    private function freedWithTheBackground(): string
    {
        try {
            $this->staysHeld();
        } catch (RuntimeException $tooEarly) {
            // Some systems end the processes that a worker has left together with it.
            return $this->isBackgroundRunning() ? throw $tooEarly : 'with the background process';
        }
        $this->endBackground();
        $end = hrtime(true);
        if ($this->client->acquire($this->name, self::PATIENCE) === null) {
            throw new RuntimeException('the end of the background process does not free the lock');
        }
        return self::milliseconds($end, hrtime(true)) . ' after that ends';
    }

    /**
     * Checks that the next request can acquire the lock, in the same worker unless that was to end.
     */
    private function servesOn(Ending $ending, string $worker): void
    {
        $next = $this->request(Endings::all()[0], ['timeout' => (string) self::AT_ONCE], $ending->pool);
        $same = $next->expect('holds') === $worker;
        $next->answer();
        if ($same === $ending->dies) {
            throw new RuntimeException($same ? 'its worker has not ended' : 'its worker has ended');
        }
        if ($this->client->acquire($this->name, self::AT_ONCE) === null) {
            throw new RuntimeException('the next request has not released the lock');
        }
    }

    /** @param array<string, string> $query */
    public function request(Ending $ending, array $query, ?string $pool = null): Request
    {
        return new Request($this->fpm->socket($pool ?? $ending->pool), self::SCRIPT, $query + [
            'alive' => $this->alive,
            'ending' => $ending->name,
            'name' => $this->name,
            'server' => $this->server->tcp(),
            'transport' => $this->transport,
        ]);
    }

    private function isBackgroundRunning(): bool
    {
        $stat = @file_get_contents("/proc/$this->background/stat");
        return is_string($stat) && preg_match('/^\d+ \(.*\) [ZX] /', $stat) !== 1;
    }

    private function endBackground(): void
    {
        if ($this->background !== null) {
            posix_kill($this->background, SIGKILL);
            $this->background = null;
        }
    }

    public function __destruct()
    {
        $this->endBackground();
        @unlink($this->alive);
    }
}
