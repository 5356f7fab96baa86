<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * What a piece of source code does with the result of a call.
 *
 * @internal
 */
enum ResultUse
{
    /** It only looks whether there is a result, or not even that, and PHP destroys it at once. */
    case Dropped;

    /** It is what the surrounding function returns. */
    case Returned;

    /** Anything else, or it cannot be told. */
    case Unknown;
}
