<?php

declare(strict_types=1);

namespace Lockd\Transport;

/**
 * What the server says about a lock that it has granted.
 *
 * @internal
 */
final class Grant
{
    public function __construct(
        /** The fencing token. */
        public readonly int $token,
        /**
         * Whether the last exclusive holder vanished without releasing the lock; null: to be asked
         * with inspect().
         */
        public readonly ?bool $orphaned,
    ) {
    }
}
