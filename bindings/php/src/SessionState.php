<?php

declare(strict_types=1);

namespace Lockd;

/**
 * What is known of a client's session: {@see Client::state()}. Only `Alive` is a yes.
 */
enum SessionState
{
    /** It is connected, and has what it has acquired. */
    case Alive;

    /**
     * The connection has ended, and the session may be resumed, with its locks, or be lost: which
     * it is will be known within 16.5 seconds (with the server's default dead-peer timeout). Begin
     * nothing on the strength of a lock meanwhile. Only sessions that resume are ever in doubt. One
     * that holds nothing is in doubt while its server cannot be reached, however long that takes.
     */
    case InDoubt;

    /** Its locks are lost: others may have them now. It stays lost. */
    case Lost;
}
