<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

/** When a lock is free, or a place in its queue gone, after a request's end. */
enum Freed
{
    /** Within a second. */
    case AtOnce;
    /** When the same worker uses lockd again. */
    case ByTheNextRequest;
    /** When the process has ended that the request has started in the background. */
    case WithTheBackground;
    /** The request has not noticed that it should end, and goes on with its lock. */
    case WhenGranted;
}
