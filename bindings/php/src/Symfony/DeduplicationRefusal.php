<?php

declare(strict_types=1);

namespace Lockd\Symfony;

use Symfony\Component\Lock\Exception\UnserializableKeyException;
use Symfony\Component\Messenger\Envelope;
use Symfony\Component\Messenger\Middleware\MiddlewareInterface;
use Symfony\Component\Messenger\Middleware\StackInterface;
use Symfony\Component\Messenger\Stamp\DeduplicateStamp;

/**
 * Stands around Messenger's middleware for deduplication, which sends a lock to another process
 * together with the message. A lock of ours cannot be sent, so the message is not sent either. This
 * class adds the reason to the exception, and changes nothing else.
 *
 * @internal
 */
final class DeduplicationRefusal implements MiddlewareInterface
{
    public function __construct(private readonly MiddlewareInterface $deduplication)
    {
    }

    public function handle(Envelope $envelope, StackInterface $stack): Envelope
    {
        try {
            return $this->deduplication->handle($envelope, $stack);
        } catch (UnserializableKeyException $e) {
            if ($envelope->last(DeduplicateStamp::class) === null) {
                throw $e;
            }
            throw new UnserializableKeyException(
                'the message is not sent: its DeduplicateStamp has a lock that belongs to this process and ends with '
                    . 'it, as every lock of a lockd does, so it cannot travel with the message to the process that '
                    . 'handles it. Let the default of framework.lock, which deduplication uses, be a store whose locks '
                    . 'live as long as their time to live, such as redis, and give lockd a name of its own',
                0,
                $e,
            );
        }
    }
}
