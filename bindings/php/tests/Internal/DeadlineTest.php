<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Lockd\Internal\Deadline;
use PHPUnit\Framework\TestCase;

final class DeadlineTest extends TestCase
{
    /**
     * @testWith [1.9997590680005, "2"]
     *           [0.05, "0.05"]
     *           [2.5, "2.5"]
     *           [0.1234567, "0.123"]
     *           [3600.0, "3600"]
     *           [1e300, "1.0E+300"]
     */
    public function testAMessageShowsSecondsToTheMillisecond(float $seconds, string $text): void
    {
        self::assertSame($text, Deadline::text($seconds));
    }
}
