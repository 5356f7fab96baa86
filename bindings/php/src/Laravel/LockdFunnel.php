<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use DateInterval;
use DateTimeInterface;
use Illuminate\Contracts\Redis\LimiterTimeoutException;
use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LockdException;
use Lockd\Internal\Body;
use Lockd\Internal\LockedCall;
use Lockd\Internal\Mode;
use Lockd\Internal\Slots;
use Lockd\Lock;

/**
 * Limits how many processes run something at once, with the methods of Laravel's `Cache::funnel()`
 * and `Redis::funnel()`. Made by {@see LockdLockProvider::funnel()}.
 *
 * The differences: **a slot does not expire.** It is free when the callback has ended, or as soon
 * as its process or its connection ends. So there are never too many because one is slow. A process
 * that waits has a place in the server's queue, and does not poll.
 */
final class LockdFunnel
{
    private ?int $limit = null;
    private float $timeout = 3.0;

    /** @internal */
    public function __construct(
        private readonly Slots $slots,
        private readonly HeldLocks $held,
        private readonly string $name,
    ) {
    }

    /**
     * How many may run at once. Programs that give different limits for one name need no agreement:
     * the smallest one of those that run is in force.
     *
     * @param int $maxLocks from 1 to 16,777,215
     * @throws InvalidArgumentException
     */
    public function limit($maxLocks): self
    {
        Mode::of(false, (int) $maxLocks);
        $this->limit = (int) $maxLocks;
        return $this;
    }

    /**
     * Ignored: a slot does not expire.
     *
     * @param DateInterval|DateTimeInterface|int $releaseAfter
     */
    public function releaseAfter($releaseAfter): self
    {
        return $this;
    }

    /**
     * How long to wait for a slot; 3 seconds unless this says otherwise.
     *
     * @param int|float $timeout in seconds; 0: do not wait
     */
    public function block($timeout): self
    {
        $this->timeout = (float) $timeout;
        return $this;
    }

    /**
     * Ignored: a waiting process does not poll.
     *
     * @param int $sleep
     */
    public function sleep($sleep): self
    {
        return $this;
    }

    /**
     * Waits for a slot, and calls the callback while holding it.
     *
     * @template T
     * @template U
     * @param callable(): T $callback must be finished when it returns, as for
     *     {@see \Lockd\Client::synchronized()}
     * @param ?callable(LimiterTimeoutException): U $failure is called instead if no slot was
     *     granted in time, with the exception that is thrown without it
     * @return ($failure is null ? T : T|U) what the callback returns, or `$failure`
     * @throws LimiterTimeoutException no slot was granted in time, or at once: this process holds all
     *     of them and would wait for itself
     * @throws InvalidArgumentException there is no limit, or the time limit is not valid; or the
     *     callback is a generator function, or its result is not finished when it returns
     * @throws ConnectionLostException also if the slot was lost while the callback ran
     * @throws LockdException
     */
    public function then(callable $callback, ?callable $failure = null): mixed
    {
        Body::mustRunWhenCalled($callback);
        $limit = $this->limit
            ?? throw new InvalidArgumentException("how many may run at once? Call limit() for \"$this->name\"");
        /** @var ?AlreadyHeldException $ownHold */
        $ownHold = null;
        return LockedCall::run(
            function () use ($limit, &$ownHold): ?Lock {
                try {
                    $this->held->reach($this->name);
                    return $this->slots->acquire($this->name, $limit, $this->timeout);
                } catch (AlreadyHeldException $ownHold) {
                    return null;
                }
            },
            static fn (): mixed => $callback(),
            function () use ($failure, &$ownHold): mixed {
                $text = $ownHold?->getMessage() ?? "no slot of \"$this->name\" was granted within $this->timeout s";
                $timeout = new LimiterTimeoutException($text, 0, $ownHold);
                return $failure === null ? throw $timeout : $failure($timeout);
            },
        );
    }
}
