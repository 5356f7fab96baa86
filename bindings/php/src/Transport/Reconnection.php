<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Closure;
use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Internal\Deadline;
use Lockd\Internal\RetryPacer;
use Lockd\Message\Connection;

/**
 * Attempts to reach a server again, one after the other, in steps that never wait. If the server has
 * several places, they are tried in rounds. There is a pause after each round. Knows nothing of what
 * is asked, and of how long it may take altogether.
 *
 * @internal
 */
final class Reconnection
{
    private ?Attempt $attempt = null;
    /** False if another protocol was spoken at the last attempt. */
    private bool $speaksMessage = true;
    private Deadline $pause;
    /** The number of the place where the present attempt or the next one is made. */
    private int $place = 0;
    /** @var list<Connection> of attempts that were given up and must stay open */
    private array $kept = [];

    /**
     * @param string $reason why there is no connection now
     * @param bool $isInDoubt whether the server must not take the end of an attempt for the client's
     *     word that its work has ended
     * @param int $places how many there are
     */
    public function __construct(
        private readonly RetryPacer $pacer,
        private string $reason,
        private readonly bool $isInDoubt,
        private readonly int $places = 1,
    ) {
        $this->pause = Deadline::in(0.0);
    }

    /**
     * Goes one step on.
     *
     * @param Closure(int): Connection $begin begins to connect to the place of that number
     * @param Closure(): array{string, array<string, mixed>, list<string>} $request what is to be
     *     sent then
     * @return ?Attempt the attempt that was answered; null: there is no answer yet
     */
    public function step(Closure $begin, Closure $request): ?Attempt
    {
        if ($this->attempt === null && !$this->pause->isOver()) {
            return null;
        }
        try {
            $this->attempt ??= $this->begin($begin($this->place));
            return $this->attempt->step($request) ? $this->attempt : null;
        } catch (ConnectionLostException | ConnectException $e) {
            $this->speaksMessage = $this->attempt?->connection->speaksMessage() ?? true;
            $why = $this->places === 1 ? $this->attempt?->connection->whyOver() : null;
            // Of several places, the message says which one it was.
            $this->retry($why ?? $e->getMessage());
            return null;
        }
    }

    private function begin(Connection $connection): Attempt
    {
        if ($this->isInDoubt) {
            $connection->keepOpen();
        }
        return new Attempt($connection, isLast: $this->place === $this->places - 1);
    }

    /** Gives the present attempt up; the next one comes at the next place, or after a pause. */
    public function retry(string $reason): void
    {
        $this->reason = $reason;
        if (!$this->isInDoubt) {
            $this->attempt?->connection->end();
        } elseif ($this->attempt?->giveUp() === false) {
            $this->kept[] = $this->attempt->connection;
        }
        $this->attempt = null;
        $this->place = ($this->place + 1) % $this->places;
        $this->pause = Deadline::in($this->place === 0 ? $this->pacer->pause(0.0) : 0.0);
    }

    /** Waits until the next step may lead further, for at most `$seconds`. */
    public function wait(float $seconds): void
    {
        if ($this->attempt !== null) {
            $this->attempt->wait($seconds);
        } else {
            usleep((int) ceil(min($seconds, $this->pause->remaining()) * 1e6));
        }
    }

    /** False if another protocol was spoken at the last attempt. */
    public function speaksMessage(): bool
    {
        return $this->speaksMessage;
    }

    /** Why there is no connection. */
    public function reason(): string
    {
        return $this->reason;
    }

    /** @return list<Connection> all that are still open, also that of the present attempt */
    public function connections(): array
    {
        return $this->attempt === null ? $this->kept : [...$this->kept, $this->attempt->connection];
    }
}
