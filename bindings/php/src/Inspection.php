<?php

declare(strict_types=1);

namespace Lockd;

/** A lock as it stood when it was looked at. */
final class Inspection
{
    public function __construct(
        /** How it is held: 'exclusive' or 'shared'; null: nobody holds it. */
        public readonly ?string $mode,
        /** How many hold it. */
        public readonly int $holders,
        /** How many wait for it. */
        public readonly int $waiters,
        /** Whether the last exclusive holder vanished without releasing it, so that its work may be half done. */
        public readonly bool $orphaned,
    ) {
    }

    public function isHeld(): bool
    {
        return $this->holders > 0;
    }
}
