<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * A moment whose age is known also if the machine has slept since. PHP's monotonic clock stands
 * still meanwhile. So this looks at three clocks, and the age is what the one says that has run
 * most: too great an age costs a question or a lock, too small a one may be a wrong "held".
 *
 * @internal
 */
final class Moment
{
    /** Linux's clock that also runs while the machine sleeps, in hundredths of a second. */
    private const UPTIME = '/proc/uptime';

    /** How much more than the difference of two readings of that clock may have passed, in seconds. */
    private const TICK = 0.01;

    private static bool $hasUptime = true;

    /** What the clocks show, in seconds; the uptime is 0.0 where it is not known. */
    public function __construct(
        private readonly float $monotonic,
        private readonly float $uptime,
        private readonly float $wall,
    ) {
    }

    public static function now(): self
    {
        return new self(Deadline::now(), self::uptime(), microtime(true));
    }

    /** In seconds. */
    public function age(): float
    {
        return $this->ageAt(self::now());
    }

    /** The age at a later moment, in seconds. */
    public function ageAt(self $later): float
    {
        return max(
            $later->monotonic - $this->monotonic,
            // Later is not known on this clock if it can no longer be read.
            $later->uptime === 0.0 ? 0.0 : $later->uptime - $this->uptime + self::TICK,
            $later->wall - $this->wall,
        );
    }

    /** The later one of two. */
    public function orLater(self $other): self
    {
        return $other->monotonic > $this->monotonic ? $other : $this;
    }

    /** 0.0: this system has no such clock, or PHP may not read it. */
    private static function uptime(): float
    {
        if (!self::$hasUptime) {
            return 0.0;
        }
        $text = Quietly::call(static fn () => file_get_contents(self::UPTIME));
        $uptime = is_string($text) ? (float) $text : 0.0;
        // Or every request would try again, in vain.
        self::$hasUptime = $uptime > 0.0;
        return $uptime;
    }
}
