<?php

declare(strict_types=1);

namespace Lockd\Laravel;

/**
 * A {@see LockdStore} whose values are in a store with tags. Laravel takes a store that has this
 * method for one with tags.
 */
final class LockdTaggedStore extends LockdStore
{
    /**
     * The tagged cache of the store of the values. Its locks are that store's, not lockd's.
     *
     * @param array<mixed>|mixed $names
     */
    public function tags($names): mixed
    {
        return $this->__call('tags', [is_array($names) ? $names : func_get_args()]);
    }
}
