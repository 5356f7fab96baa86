<?php

declare(strict_types=1);

namespace Lockd;

/** The state of a lock at the moment when it was inspected. */
final class Inspection
{
    public function __construct(
        /** 'exclusive' or 'shared'; null: the lock has no holder. */
        public readonly ?string $mode,
        /** The number of holders. */
        public readonly int $holders,
        /** The number of waiters. */
        public readonly int $waiters,
        /**
         * Whether the last exclusive holder vanished without releasing it, so that its work may be
         * half done.
         */
        public readonly bool $orphaned,
    ) {
    }

    public function isHeld(): bool
    {
        return $this->holders > 0;
    }
}
