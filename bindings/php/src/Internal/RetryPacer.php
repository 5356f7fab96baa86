<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Closure;

/**
 * How long a client that waits for a lock pauses before it asks a server again that was not there.
 * Computes pauses; neither sleeps nor connects, and reads no clock.
 *
 * When a server is killed, all its waiters learn of it in the same instant, and must not come back
 * in the same instant. So each pause is random, from zero up to a longest pause that doubles with
 * each attempt (exponential backoff with full jitter). The figures are those of every client of
 * lockd: they spread ten thousand waiters over four seconds.
 *
 * @internal
 */
final class RetryPacer
{
    /** The longest first pause, in seconds. A restart takes about a second. */
    private const FIRST_MAX = 0.5;

    /** The longest pause of all: no client is away for longer after its server has started. */
    private const PAUSE_MAX = 4.0;

    /**
     * A session that lasted at least this long, in seconds, shows that the server works: after it
     * the pauses begin short again. After a shorter one they grow on, or a server that fails right
     * after each start would be asked by everybody all the time.
     */
    private const STEADY = 10.0;

    private float $longest;

    /**
     * @param ?Closure(): float $random a number from 0 to 1; null: the system's random numbers
     * @param float $firstMax the longest first pause, in seconds
     * @param float $pauseMax the longest pause of all, in seconds
     */
    public function __construct(
        private readonly ?Closure $random = null,
        private readonly float $firstMax = self::FIRST_MAX,
        private readonly float $pauseMax = self::PAUSE_MAX,
    ) {
        $this->longest = $firstMax;
    }

    /**
     * For a session in doubt, which has seconds: the figures of every client of lockd. Few sessions
     * hold a lock, compared with those that wait for one.
     */
    public static function forDoubt(): self
    {
        return new self(firstMax: 0.05, pauseMax: 1.0);
    }

    /**
     * The pause before the next attempt, in seconds.
     *
     * @param float $lasted how long the session lasted that was lost; 0.0: there was none
     */
    public function pause(float $lasted): float
    {
        if ($lasted >= self::STEADY) {
            $this->longest = $this->firstMax;
        }
        $pause = $this->longest * ($this->random === null ? self::random() : ($this->random)());
        $this->longest = min($this->pauseMax, $this->longest * 2);
        return $pause;
    }

    private static function random(): float
    {
        // Not mt_rand(): forked workers have inherited its state, and would all pause alike.
        return random_int(0, 1 << 24) / (1 << 24);
    }
}
