<?php

declare(strict_types=1);

namespace Lockd;

use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\DeadlockException;
use Lockd\Exception\ForkedException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Exception\NotHeldException;
use Lockd\Exception\RefusedException;
use Lockd\Internal\Owner;
use Lockd\Transport\Grant;

/**
 * A lock that was granted. It is held until it is released, which also happens when this object goes, or until its
 * connection ends. Made by {@see Client::acquire()}.
 */
final class Lock
{
    private int $token;
    private ?bool $orphaned;

    /** @internal */
    public function __construct(
        private readonly Owner $owner,
        private readonly string $name,
        private bool $shared,
        Grant $grant,
    ) {
        $this->token = $grant->token;
        $this->orphaned = $grant->orphaned;
    }

    public function name(): string
    {
        return $this->name;
    }

    public function isShared(): bool
    {
        return $this->shared;
    }

    /**
     * The fencing token: higher than that of every earlier grant of any name, below 2^53. A resource that is handed
     * it can refuse a holder that is late. It changes when the lock is made exclusive.
     */
    public function token(): int
    {
        return $this->token;
    }

    /** Whether the last exclusive holder vanished without releasing the lock: what it was at may be half done. */
    public function orphaned(): bool
    {
        return $this->orphaned ??= $this->owner->at(
            $this->name,
            fn (Transport\Transport $transport): bool => $transport->inspect($this->name)->orphaned,
        );
    }

    /**
     * Whether the lock is held now: asks the server, and says no if that does not answer within the connection's
     * time limit. In a forked child: no.
     */
    public function isHeld(): bool
    {
        return $this->owner->holds($this->name, $this->token);
    }

    /**
     * Frees the lock, which goes to the next in its queue in the same moment.
     *
     * @return bool false: it was released before
     * @throws ConnectionLostException it was lost, perhaps long ago: others may have had it meanwhile
     * @throws NotHeldException the same, but the connection stands
     * @throws ForkedException it is the parent process' lock
     */
    public function release(): bool
    {
        return $this->owner->release($this->name, $this->token);
    }

    /**
     * Makes a shared lock exclusive or an exclusive one shared, without letting it go. To exclusive it waits, ahead
     * of everybody else, for the other holders to go; to shared it waits for nobody.
     *
     * @param ?float $timeout in seconds; null: without limit; 0.0: not at all
     * A signal's handler that throws may do so when it has been converted: {@see isShared()} tells.
     *
     * @return bool false: not within the time limit, and it is held as before
     * @throws AlreadyHeldException it is just being converted
     * @throws DeadlockException two holders are making the same lock exclusive; it is held as before
     * @throws NotHeldException
     * @throws RefusedException it is held as before
     * @throws ConnectionLostException
     */
    public function convert(bool $shared, ?float $timeout = null): bool
    {
        $converted = function (Grant $grant) use ($shared): void {
            $this->token = $grant->token;
            $this->shared = $shared;
        };
        return $this->owner->convert($this->name, $this->token, $shared, $timeout, $converted);
    }

    public function __destruct()
    {
        if ($this->owner->isOurs()) {
            try {
                $this->release();
            } catch (LockdException) {
                // Nobody is there to be told, and there is nothing left to free.
            }
        }
    }

    /** @return array<mixed> */
    public function __serialize(): array
    {
        throw new InvalidArgumentException('a lock belongs to its process: it cannot be serialized');
    }

    /** @param array<mixed> $data */
    public function __unserialize(array $data): void
    {
        throw new InvalidArgumentException('a lock cannot be made of text');
    }

    private function __clone()
    {
    }
}
