<?php

declare(strict_types=1);

namespace Lockd\Tests\Message;

use Lockd\Message\Rendezvous;
use PHPUnit\Framework\TestCase;

final class RendezvousTest extends TestCase
{
    /** docs/protocol.md, section 5, has the scores of the first two. */
    public function testChoosesAsDocumentedInWhateverOrderTheServersAreGiven(): void
    {
        [$one, $two] = ['tcp://10.0.0.1:20934', 'tcp://10.0.0.2:20934'];
        foreach (['report' => $one, 'user/8' => $one, 'c' => $two] as $name => $server) {
            self::assertSame($server, Rendezvous::choose([$one, $two], $name));
            self::assertSame($server, Rendezvous::choose([$two, $one], $name));
        }
    }

    public function testOneServerHasEveryName(): void
    {
        self::assertSame('unix:/a', Rendezvous::choose(['unix:/a'], 'any'));
    }
}
