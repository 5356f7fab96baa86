<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * Raises a warning if a lock has just been granted to code that does not keep it, as in
 * `if ($client->acquire('x')) { … }`: the lock is released before the block begins. For development
 * only. It looks where the call was made and reads the source there; it changes nothing, and is
 * silent about everything that it cannot tell for certain.
 *
 * @internal
 */
final class Unkept
{
    /** Through how many functions that only return the lock its caller is searched. */
    private const DEPTH = 8;

    /** @var array<string, ResultUse> by the place of a call */
    private static array $uses = [];

    /** @var array<string, true> the places that have been reported */
    private static array $reported = [];

    /**
     * To be called by the method whose result must be kept, in an assertion.
     *
     * @return bool true, so that the assertion holds
     */
    public static function report(string $name): bool
    {
        // It may be disabled.
        /** @var array<int, array{file?: string, line?: int, function: string}> */
        $calls = function_exists('debug_backtrace') ? debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS, self::DEPTH) : [];
        // The first call is that of this method.
        unset($calls[0]);
        foreach ($calls as $call) {
            if (!isset($call['file'], $call['line'])) {
                // PHP itself has called, as for array_map().
                break;
            }
            $place = "{$call['file']}:{$call['line']}";
            $use = self::$uses["$place:{$call['function']}"]
                ??= SourceFile::useOfResult($call['file'], $call['line'], $call['function']);
            if ($use === ResultUse::Dropped && !isset(self::$reported[$place])) {
                self::$reported[$place] = true;
                trigger_error(
                    "lockd: \"$name\" is acquired in $place, but is released at once, before the work begins: its "
                    . 'object is not kept. Write $lock = … and keep that variable until the work is done',
                    E_USER_WARNING,
                );
            }
            if ($use !== ResultUse::Returned) {
                break;
            }
        }
        return true;
    }
}
