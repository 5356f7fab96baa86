<?php

declare(strict_types=1);

namespace Lockd\Tests\Session;

use Lockd\Tests\Support\Nothing;
use Lockd\Tests\Support\Server;
use Lockd\Tests\Support\Standby;
use PHPUnit\Framework\TestCase;

/** A session whose lock resumes. */
final class ResumeTest extends TestCase
{
    public function testASessionIsWrittenWhenItsServerIsActiveElsewhere(): void
    {
        [$server, $free, $standby] = [new Server(remembers: true), new Nothing(), Standby::start()];
        $url = "tcp://$standby->place,$free->place,{$server->place()}?resume";
        $request = new Request([$url, '60', FileHandler::class, $server->directory(), 'a1']);
        self::assertTrue($request->quietly('start'));
        $request->quietly('add 5');
        $server->stop();
        $server->startAt($free->place);
        self::assertTrue($request->quietly('write'));
        self::assertSame(5, $request->do('start')['n']);
    }

    public function testASessionIsWrittenWhenItsLockIsCertainAgain(): void
    {
        $server = new Server(remembers: true);
        $request = new Request([$server->tcp() . '?resume', '60', FileHandler::class, $server->directory(), 'a1']);
        self::assertTrue($request->quietly('start'));
        $request->quietly('add 5');
        $server->restartCleanly();
        self::assertTrue($request->quietly('write'));
        self::assertSame(5, $request->do('start')['n']);
        $request->quietly('add 2');
        $server->stop();
        // The server does not come back in time.
        $warning = 'lockd: the session is not written, since its lock is in doubt';
        self::assertSame($warning, $request->do('write')['warnings'][0]);
        self::assertSame('n|i:5;', (new FileHandler($server->directory()))->read('a1'));
    }
}
