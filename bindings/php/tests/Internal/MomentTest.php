<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Lockd\Internal\Moment;
use PHPUnit\Framework\TestCase;

final class MomentTest extends TestCase
{
    /** @return iterable<string, array{Moment, Moment, float}> */
    public static function ages(): iterable
    {
        $before = new Moment(10.0, 100.0, 5000.0);
        yield 'awake' => [$before, new Moment(12.0, 101.995, 5002.0), 2.005];
        yield 'the machine has slept' => [$before, new Moment(12.0, 160.0, 5060.0), 60.01];
        yield 'it has slept, and its clock was set back' => [$before, new Moment(12.0, 160.0, 4000.0), 60.01];
        yield 'it has slept, and does not tell its uptime' =>
            [new Moment(10.0, 0.0, 5000.0), new Moment(12.0, 0.0, 5060.0), 60.0];
        yield 'its uptime can no longer be read' => [$before, new Moment(12.0, 0.0, 5060.0), 60.0];
        yield 'it was set back and does not tell' =>
            [new Moment(10.0, 0.0, 5000.0), new Moment(12.0, 0.0, 4000.0), 2.0];
    }

    /** @dataProvider ages */
    public function testTheAgeIsWhatTheClockSaysThatHasRunMost(Moment $before, Moment $later, float $age): void
    {
        self::assertEqualsWithDelta($age, $before->ageAt($later), 1e-9);
    }

    public function testTheLaterOneIsThatOfTheMonotonicClock(): void
    {
        [$before, $later] = [new Moment(10.0, 100.0, 5000.0), new Moment(11.0, 100.0, 4000.0)];
        self::assertSame([$later, $later], [$before->orLater($later), $later->orLater($before)]);
    }

    public function testThisSystemHasSuchAClock(): void
    {
        $before = Moment::now();
        self::assertGreaterThanOrEqual(0.0, $before->age());
        $uptime = (float) file_get_contents('/proc/uptime');
        // As if it had been read when the machine was started.
        self::assertGreaterThanOrEqual($uptime, (new Moment(hrtime(true) / 1e9, 1e-9, microtime(true)))->age());
    }
}
