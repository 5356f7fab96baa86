<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\LockdException;
use Lockd\Lock;
use Throwable;

/**
 * Acquires a lock, calls a function while holding it, and releases it. A signal handler may throw
 * at any moment meanwhile. Does not know which lock it is, or what its caller says if it is not
 * granted.
 *
 * @internal
 */
final class LockedCall
{
    /**
     * How long to wait when the function has ended and its lock is in doubt, in seconds: as long as
     * a server may take to answer, by default.
     */
    private const DOUBT = 5.0;

    /**
     * @template T
     * @template U
     * @param callable(): ?Lock $acquire
     * @param callable(Lock): T $body must be finished when it returns
     * @param callable(): U $otherwise is called if the lock was not granted
     * @param ?callable(): mixed $release releases the lock; may be called again after that
     * @return T|U what the body returns, or `$otherwise`
     * @throws LockdException also if the lock was lost, or its client closed, while the body ran, or
     *     if it is in doubt then
     */
    public static function run(
        callable $acquire,
        callable $body,
        callable $otherwise,
        ?callable $release = null,
    ): mixed {
        $lock = null;
        try {
            // Stored before a signal handler can run and throw: PHP may then lose the function's
            // return value.
            Signals::deferred(static function () use (&$lock, $acquire): void {
                $lock = $acquire();
            });
            if ($lock === null) {
                return $otherwise();
            }
            $release ??= $lock->release(...);
            if (!$lock->isGranted()) {
                $name = $lock->name();
                throw new ConnectionLostException("this client was closed just after it had acquired \"$name\"");
            }
            $result = $body($lock);
            $lock->waitCertain(self::DOUBT);
            $release();
            // A function may release its lock itself. But if it has closed the client, the lock was
            // gone while it went on.
            if ($lock->hasFailed()) {
                throw new ConnectionLostException("\"{$lock->name()}\" was lost while the function ran under it");
            }
        } catch (Throwable $e) {
            // Do not leave this to the lock's destructor: the exception's trace may refer to the
            // lock. If the exception is a signal handler's, it may have interrupted the release.
            try {
                if ($lock !== null) {
                    ($release ?? $lock->release(...))();
                }
            } catch (LockdException) {
                // The caller must see the first exception, not this one.
            }
            throw $e;
        }
        Body::mustBeDone($result);
        return $result;
    }
}
