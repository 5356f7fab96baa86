<?php

declare(strict_types=1);

namespace Lockd\Tests\Message;

use Lockd\Message\Address;
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

    /** The same numbers as in the tests of the Rust client. */
    public function testAServerAtSeveralPlacesIsChosenAsOne(): void
    {
        $list = 'tcp://a1:20934,a2:20934,tcp://b2:20934,b1:20934?resume,tcp://c1:20934';
        [$a, $b, $c] = $servers = array_keys(Address::parseList($list));
        self::assertSame(['tcp://a1:20934,a2:20934', 'tcp://b1:20934,b2:20934', 'tcp://c1:20934'], $servers);
        $expected = ['' => $c, 'foo' => $b, 'bar' => $c, 'job:17' => $c, 'job:18' => $b, 'job:21' => $a, 'x' => $c];
        foreach ($expected as $name => $server) {
            self::assertSame($server, Rendezvous::choose($servers, $name));
        }
    }

    public function testOneServerHasEveryName(): void
    {
        self::assertSame('unix:/a', Rendezvous::choose(['unix:/a'], 'any'));
    }
}
