<?php

declare(strict_types=1);

namespace Lockd;

/** What happens while {@see Client::connectAndAcquire()} waits, with a reason for each event. */
enum WaitEvent
{
    /**
     * There is no server now, or the connection is lost. The next attempt follows after a pause. So
     * this comes once for each failed attempt, each time with a reason.
     */
    case NoServer;

    /**
     * From now on the client waits in the queue. The reason is null if it waits for other clients.
     * Otherwise it says why the server grants nothing yet, after a stop that was not clean.
     */
    case Waiting;
}
