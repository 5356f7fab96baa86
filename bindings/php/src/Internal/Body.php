<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Closure;
use Fiber;
use Generator;
use Lockd\Exception\InvalidArgumentException;
use ReflectionFunction;

/**
 * Checks for code that is called while a lock is held. It must be finished when it returns, because
 * the lock is released then. This class knows nothing of locks.
 *
 * Refused are generators, fibers that have not ended, futures of Amp and promises: objects with a
 * method `then` (those of Guzzle, HTTPlug and React, and builders that start something when they
 * are told to). A promise that can say that it is settled is accepted. Closures, iterators and
 * collections that are not generators, lazy collections among them, are accepted, because they are
 * often values and not unfinished work. Promises inside an array are not noticed.
 *
 * @internal
 */
final class Body
{
    /**
     * The last fiber that was refused, kept because PHP 8.2 may crash if a fiber is destroyed while
     * an exception is being thrown.
     */
    private static ?Fiber $unfinished = null;

    /**
     * Call this before the lock is acquired.
     *
     * @throws InvalidArgumentException it is a generator function: calling it runs none of its code
     */
    public static function mustRunWhenCalled(callable $body): void
    {
        // PHP 8.2 may crash if a signal handler throws while an object is being created.
        $isGenerator = Signals::deferred(
            static fn (): bool => (new ReflectionFunction(Closure::fromCallable($body)))->isGenerator()
        );
        if ($isGenerator) {
            throw new InvalidArgumentException(
                'a function with yield in it does not run when it is called, but when its generator is read. By then '
                . 'the lock would be released: read the generator inside the function that is called under the lock'
            );
        }
    }

    /**
     * Call this after the lock has been released.
     *
     * @throws InvalidArgumentException some of the work that the result stands for has not run yet
     */
    public static function mustBeDone(mixed $result): void
    {
        if (is_object($result) && !self::isDone($result)) {
            self::$unfinished = $result instanceof Fiber ? $result : null;
            throw new InvalidArgumentException(
                'the function that was called under the lock has returned a ' . get_debug_type($result)
                . ' that is not done: it goes on without the lock. Await or read it inside that function'
            );
        }
    }

    private static function isDone(object $result): bool
    {
        return match (true) {
            // A generator may have been read to its end, but asking it for that may run it.
            $result instanceof Generator => false,
            $result instanceof Fiber => $result->isTerminated(),
            is_a($result, 'Amp\Future') => self::ask($result, 'isComplete') === true,
            method_exists($result, 'then') => !in_array(self::ask($result, 'getState'), [null, 'pending'], true),
            default => true,
        };
    }

    /** What this method of the object returns; null: it has no such method. */
    private static function ask(object $result, string $method): mixed
    {
        $question = [$result, $method];
        return method_exists($result, $method) && is_callable($question) ? $question() : null;
    }
}
