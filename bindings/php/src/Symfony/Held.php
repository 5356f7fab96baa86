<?php

declare(strict_types=1);

namespace Lockd\Symfony;

use Lockd\Lock;
use Symfony\Component\Lock\Key;
use WeakMap;

/**
 * A lock, and the keys of its store that hold it: one, or several that share it, since all of them are one owner to
 * the server. It is kept by its keys alone, and goes with them.
 *
 * @internal
 */
final class Held
{
    /** @var WeakMap<Key, true> */
    public WeakMap $keys;

    /** @param LockdStore $store kept, so that no other store is taken for it while a key holds something by it */
    public function __construct(public readonly LockdStore $store, public readonly Lock $lock)
    {
        $this->keys = new WeakMap();
    }
}
