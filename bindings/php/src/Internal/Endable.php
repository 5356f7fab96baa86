<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * A connection, or a session of liblockd, which must be closed before its process ends.
 *
 * @internal
 */
interface Endable
{
    /**
     * Ends the session: its locks are freed. To be called only in the process that has opened it.
     */
    public function end(): void;

    /** Closes a forked child's copy. The parent's session is not affected. */
    public function abandon(): void;
}
