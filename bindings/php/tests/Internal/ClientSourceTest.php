<?php

declare(strict_types=1);

namespace Lockd\Tests\Internal;

use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Internal\ClientSource;
use Lockd\Tests\Support\Deadline;
use Lockd\Tests\Support\Server;
use PHPUnit\Framework\TestCase;

final class ClientSourceTest extends TestCase
{
    public function testALostClientIsReplaced(): void
    {
        $server = new Server();
        $source = new ClientSource($server->tcp());
        $lock = $source->client()->acquire('again');
        $server->restart();
        self::assertTrue($source->client()->acquire('again', 0.0)?->isHeld());
        self::assertFalse($lock?->isHeld());
    }

    public function testAClientThatStillHoldsALockIsKept(): void
    {
        $servers = [new Server(), new Server()];
        $source = new ClientSource($servers[0]->tcp() . ',' . $servers[1]->tcp());
        $client = $source->client();
        $locks = array_map(fn (int $number) => $client->acquire("kept/$number"), range(1, 20));
        $servers[1]->restart();
        self::assertSame($client, $source->client());
        foreach ($locks as $lock) {
            try {
                $lock?->release();
            } catch (ConnectionLostException) {
                continue;
            }
        }
        self::assertNotSame($client, $source->client());
        self::assertTrue($source->client()->stands());
    }

    public function testAClientThatHoldsNothingIsReplacedAfterTheLossOfAServer(): void
    {
        $servers = [new Server(), new Server()];
        $source = new ClientSource($servers[0]->tcp() . ',' . $servers[1]->tcp());
        $client = $source->client();
        $servers[1]->restart();
        Deadline::until('the loss is noticed', fn (): bool => $source->client() !== $client);
        foreach (range(1, 20) as $number) {
            self::assertTrue($source->client()->acquire("anew/$number", 0.0)?->release());
        }
    }

    public function testAMissingServerIsTriedAgainWhenItIsNeeded(): void
    {
        $servers = [new Server(), new Server()];
        $source = new ClientSource($servers[0]->unix() . ',' . $servers[1]->unix());
        $servers[1]->kill();
        $client = $source->client();
        foreach (range(1, 20) as $number) {
            self::assertSame($client, $source->client());
            try {
                $client->acquire("needed/$number", 0.0)?->release();
            } catch (ConnectionLostException) {
                break;
            }
        }
        self::assertNotSame($client, $source->client());
    }

    public function testInvalidArgumentsAreRefusedWithoutConnecting(): void
    {
        foreach ([['nowhere', null, 5.0], ['tcp://a', "\xff", 5.0], ['tcp://a', null, 0.0]] as $arguments) {
            try {
                new ClientSource(...$arguments);
                self::fail('the invalid argument was accepted');
            } catch (InvalidArgumentException $e) {
                self::assertNotSame('', $e->getMessage());
            }
        }
    }
}
