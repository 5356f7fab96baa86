<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\NotHeldException;
use Lockd\Lock;
use Lockd\Transport\Grant;
use Lockd\Transport\Transport;

/**
 * One owner of locks and what it holds, shared by a client and its locks: it lives for as long as one of them does.
 * Sees to what is the same on every transport: names, that nobody gets a lock twice, forks, signals.
 *
 * @internal
 */
final class Owner
{
    private readonly int $pid;
    /** @var array<array-key, int> token by name; 0: waited for */
    private array $held = [];
    /** @var array<array-key, true> by name */
    private array $converting = [];
    /** Whether a call has said that something is lost. */
    private bool $hasToldOfLoss = false;

    public function __construct(private readonly Transport $transport)
    {
        $this->pid = Process::id();
    }

    /**
     * The name of an owner, if it can be one.
     *
     * @throws InvalidArgumentException
     */
    public static function label(?string $owner): ?string
    {
        if ($owner !== null && (str_contains($owner, "\0") || preg_match('//u', $owner) !== 1)) {
            throw new InvalidArgumentException('the name of an owner is text in UTF-8, without zero bytes');
        }
        return $owner;
    }

    public function acquire(string $name, bool $shared, ?float $timeout): ?Lock
    {
        $deadline = Deadline::in($timeout);
        return $this->at($name, function () use ($name, $shared, $deadline): ?Lock {
            if (isset($this->held[$name])) {
                // It may be that the connection is lost and with it what was held: then this says so.
                $this->transport->inspect($name);
                $what = $this->held[$name] === 0 ? 'waits for' : 'holds';
                throw new AlreadyHeldException("this client $what \"$name\" already, and is one owner");
            }
            $this->held[$name] = 0;
            try {
                $grant = $this->transport->acquire($name, $shared, $deadline);
            } finally {
                unset($this->held[$name]);
            }
            if ($grant === null) {
                return null;
            }
            $this->held[$name] = $grant->token;
            return new Lock($this, $name, $shared, $grant);
        });
    }

    /**
     * @param callable(Grant): void $converted is told of the grant before anything else can happen
     * @return bool false: not within the time limit
     */
    public function convert(string $name, int $token, bool $shared, ?float $timeout, callable $converted): bool
    {
        $deadline = Deadline::in($timeout);
        return $this->at($name, function () use ($name, $token, $shared, $deadline, $converted): bool {
            if (!$this->remembers($name, $token)) {
                throw new NotHeldException("\"$name\" has been released");
            }
            $this->refuseWhileConverting($name);
            $this->converting[$name] = true;
            try {
                $grant = $this->transport->convert($name, $shared, $deadline);
                if ($grant !== null) {
                    $this->held[$name] = $grant->token;
                    $converted($grant);
                }
                return $grant !== null;
            } finally {
                unset($this->converting[$name]);
            }
        });
    }

    /** False: it was released before. */
    public function release(string $name, int $token): bool
    {
        return $this->at($name, function () use ($name, $token): bool {
            if (!$this->remembers($name, $token)) {
                return false;
            }
            $this->refuseWhileConverting($name);
            // Whatever comes of it, nobody is to believe in it any more.
            unset($this->held[$name]);
            return $this->transport->release($name)
                ?: throw new NotHeldException("\"$name\" was not held any more when it was to be released");
        });
    }

    /** A signal's handler may want to change a lock in the middle of that. */
    private function refuseWhileConverting(string $name): void
    {
        if (isset($this->converting[$name])) {
            throw new AlreadyHeldException("this client is just converting \"$name\"");
        }
    }

    public function holds(string $name, int $token): bool
    {
        return $this->isOurs() && $this->at($name, fn (): bool =>
            $this->remembers($name, $token) && $this->transport->holds($name));
    }

    /**
     * @template T
     * @param callable(Transport): T $body
     * @return T
     */
    public function at(string $name, callable $body): mixed
    {
        if (!$this->isOurs()) {
            throw new ForkedException('this client is the parent process\': a child has to connect by itself');
        }
        if (str_contains($name, "\0")) {
            throw new InvalidArgumentException('a name with a zero byte in it, which C would cut short');
        }
        try {
            return Signals::deferred(fn (): mixed => $body($this->transport));
        } catch (ConnectionLostException $e) {
            $this->hasToldOfLoss = true;
            throw $e;
        }
    }

    /** Releases everything and ends the session. */
    public function close(): void
    {
        Signals::deferred(function (): void {
            foreach ($this->isOurs() ? array_keys(array_filter($this->held)) : [] as $name) {
                try {
                    $this->transport->release((string) $name);
                } catch (LockdException) {
                    // What is lost need not be released; of several servers others may be there.
                }
            }
            $this->held = [];
            $this->transport->close();
        });
    }

    /**
     * Whether another one may take its place: nothing of it stands any more, or it holds nothing and some of its
     * servers are gone. One that was not there at the start counts when it was needed: to connect anew before every
     * call would cost each of them the time that such a server takes.
     */
    public function isSpent(): bool
    {
        return !$this->isOurs() || Signals::deferred(fn (): bool => $this->transport->hasEnded()
            || ($this->held === [] && ($this->hasToldOfLoss || $this->transport->hasLostAServer())));
    }

    public function isOurs(): bool
    {
        return $this->pid === Process::id();
    }

    public function stands(): bool
    {
        return $this->isOurs() && Signals::deferred(fn (): bool =>
            $this->transport->stands(array_map('strval', array_keys($this->held))));
    }

    /** Whether it was granted and not released, whatever has become of the connection. */
    public function remembers(string $name, int $token): bool
    {
        return ($this->held[$name] ?? 0) === $token;
    }
}
