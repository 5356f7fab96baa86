<?php

declare(strict_types=1);

namespace Lockd\Tests\Client;

use Lockd\Client;
use Lockd\Exception\ForkedException;
use Lockd\Tests\Support\Child;

final class EmbeddedTest extends LocksContract
{
    protected static function client(?string $owner = null): Client
    {
        return Client::embedded($owner);
    }

    public function testAForkedChildHasItsOwnBroker(): void
    {
        $client = self::client();
        $lock = $client->acquire('parted');
        $child = Child::start(function (callable $say) use ($client, $lock): void {
            try {
                $second = $client->acquire('parted', 0.0);
            } catch (ForkedException) {
                $say($lock?->isHeld() ? 'held' : 'not held');
            }
            $say(self::client()->acquire('parted', 0.0)?->isHeld() === true ? 'free' : 'busy');
        });
        self::assertSame(['not held', 'free', 'done'], [$child->hear(), $child->hear(), $child->hear()]);
        self::assertTrue($lock?->isHeld());
    }
}
