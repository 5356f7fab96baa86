<?php

declare(strict_types=1);

namespace Lockd;

/** The state of a lock at the moment when it was inspected. */
final class Inspection
{
    public function __construct(
        /** 'exclusive' or 'shared', with a limit or without; null: the lock has no holder. */
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
        /**
         * How many holders the present ones allow: the smallest limit of them all. 1: it is held
         * exclusively; null: any number, or the lock has no holder.
         */
        public readonly ?int $limit = null,
    ) {
    }

    /**
     * How many more holders the present ones allow; null: any number, or the lock has no holder. A
     * request may have to wait all the same: for those that wait already, who are served first, or
     * because its own limit is smaller.
     */
    public function freeSlots(): ?int
    {
        return $this->limit === null ? null : max(0, $this->limit - $this->holders);
    }

    public function isHeld(): bool
    {
        return $this->holders > 0;
    }
}
