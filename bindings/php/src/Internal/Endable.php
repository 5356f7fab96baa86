<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * What ends with its process: a connection, or a session of liblockd.
 *
 * @internal
 */
interface Endable
{
    /** Ends it for everyone: its locks are freed. Only in the process that has opened it. */
    public function end(): void;

    /** Lets go of a forked child's copy, and changes nothing for the parent. */
    public function abandon(): void;
}
