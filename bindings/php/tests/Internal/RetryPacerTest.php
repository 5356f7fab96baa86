<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Lockd\Internal\RetryPacer;
use PHPUnit\Framework\TestCase;

final class RetryPacerTest extends TestCase
{
    public function testPausesGrowUpToALimitAndBeginShortAgainAfterASteadySession(): void
    {
        $pacer = new RetryPacer(static fn (): float => 1.0);
        $pauses = array_map(static fn (): float => $pacer->pause(0.0), range(1, 6));
        self::assertSame([0.5, 1.0, 2.0, 4.0, 4.0, 4.0], $pauses);
        self::assertSame(4.0, $pacer->pause(9.9), 'a server that fails soon is not asked more often');
        self::assertSame([0.5, 1.0], [$pacer->pause(10.0), $pacer->pause(0.0)]);
    }

    public function testInDoubtThePausesAreShort(): void
    {
        $pacer = RetryPacer::forDoubt();
        $longest = 0.05;
        for ($attempt = 0; $attempt < 20; $attempt++) {
            self::assertLessThanOrEqual($longest, $pacer->pause(0.0));
            $longest = min(1.0, 2 * $longest);
        }
    }

    public function testAPauseIsThatPartOfTheLongestWhichTheRandomNumberSays(): void
    {
        $random = [0.0, 0.25, 0.5];
        $pacer = new RetryPacer(static function () use (&$random): float {
            return array_shift($random);
        });
        self::assertSame([0.0, 0.25, 1.0], [$pacer->pause(0.0), $pacer->pause(0.0), $pacer->pause(0.0)]);
    }

    public function testClientsSpreadOverTheWholePauseAlsoIfTheirRandomNumbersAreSeededAlike(): void
    {
        $tenths = [];
        // Each tenth is missed with a probability of 0.9 to the power of 2000.
        for ($client = 0; $client < 2000; $client++) {
            mt_srand(1);
            $pause = (new RetryPacer())->pause(0.0);
            self::assertTrue($pause >= 0.0 && $pause <= 0.5);
            $tenths[(int) min(9, $pause * 20)] = true;
        }
        mt_srand();
        self::assertCount(10, $tenths);
    }
}
