<?php

declare(strict_types=1);

namespace Lockd;

/** What happens while {@see Client::connectAndAcquire()} waits. */
enum WaitEvent
{
    /** There is no server now, or the connection is lost. The next attempt follows after a pause. */
    case NoServer;

    /** The lock is not free, and from now on the client waits in the queue. */
    case Waiting;
}
