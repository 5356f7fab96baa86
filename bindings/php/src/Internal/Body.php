<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Closure;
use Fiber;
use Generator;
use Lockd\Exception\InvalidArgumentException;
use ReflectionFunction;

/**
 * What is called while a lock is held. It must be done when it returns, since the lock is released then: what runs
 * later runs without the lock. Knows nothing of locks itself.
 *
 * Recognised are generators, fibers that have not ended, and promises: objects with a method `then` (those of Guzzle,
 * HTTPlug and React, and builders that start something when they are told to) and futures of Amp. A promise that can
 * say that it is settled is let through. Not recognised is what is often a value and not work: closures, iterators
 * and collections that are not generators themselves, a lazy collection among them, and promises in an array.
 *
 * @internal
 */
final class Body
{
    /** The last one that was refused. PHP 8.2 may crash where one is destroyed while an exception is on its way. */
    private static ?Fiber $unfinished = null;

    /**
     * To be asked before the lock is acquired.
     *
     * @throws InvalidArgumentException it is a generator function, of which a call runs nothing
     */
    public static function mustRunWhenCalled(callable $body): void
    {
        // PHP 8.2 may crash where a signal's handler throws while a new object is being made.
        $isGenerator = Signals::deferred(
            static fn (): bool => (new ReflectionFunction(Closure::fromCallable($body)))->isGenerator()
        );
        if ($isGenerator) {
            throw new InvalidArgumentException(
                'a function with yield in it does not run when it is called, but when its generator is read, and then '
                . 'the lock would be released: read the generator within the function that is called under the lock'
            );
        }
    }

    /**
     * To be asked when the lock has been released.
     *
     * @throws InvalidArgumentException its result says that some of it has not run, or goes on
     */
    public static function mustBeDone(mixed $result): void
    {
        if (is_object($result) && !self::isDone($result)) {
            self::$unfinished = $result instanceof Fiber ? $result : null;
            throw new InvalidArgumentException(
                'what was called under the lock has returned a ' . get_debug_type($result) . ' that is not done: it '
                . 'goes on without the lock. Await or read it within the function that is called under the lock'
            );
        }
    }

    private static function isDone(object $result): bool
    {
        return match (true) {
            // One that has been read to its end would be done; but to ask it that may run it.
            $result instanceof Generator => false,
            $result instanceof Fiber => $result->isTerminated(),
            is_a($result, 'Amp\Future') => self::ask($result, 'isComplete') === true,
            method_exists($result, 'then') => !in_array(self::ask($result, 'getState'), [null, 'pending'], true),
            default => true,
        };
    }

    /** What a method of it says; null: it has none of that name. */
    private static function ask(object $result, string $method): mixed
    {
        $question = [$result, $method];
        return method_exists($result, $method) && is_callable($question) ? $question() : null;
    }
}
