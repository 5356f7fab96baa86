<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

/** When, after a request's end, its lock is free or it has left the queue. */
enum Freed
{
    /** Within a second. */
    case AtOnce;
    /** When the same worker next uses lockd. */
    case ByTheNextRequest;
    /** When the background process that the request started has ended. */
    case WithTheBackground;
    /** The request does not notice that it should end, and continues when it gets its lock. */
    case WhenGranted;
}
