<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Internal\Moment;
use Lockd\Message\Keepalive;
use Lockd\Message\Result;

/**
 * What a server has told a session so that it can resume: who it is, and for how long.
 *
 * @internal
 */
final class Ticket
{
    /** The least {@see patience()}, in seconds. */
    private const PATIENCE_MIN = 1.0;

    private function __construct(
        public readonly string $session,
        public readonly int $epoch,
        public readonly string $secret,
        /** The server's dead-peer timeout, in seconds. */
        public readonly int $deadPeerTimeout,
    ) {
    }

    /** @return ?self null: the server does not offer it */
    public static function in(Result $answer, int $deadPeerTimeout): ?self
    {
        $resume = $answer->object('resume');
        [$session, $epoch, $secret] = [$resume->text('session'), $resume->integer('epoch'), $resume->text('secret')];
        return $session === null || $epoch === null || $secret === null
            ? null : new self($session, $epoch, $secret, $deadPeerTimeout);
    }

    /**
     * For how much longer the session may be in doubt, in seconds; 0.0: it is lost.
     *
     * @param Moment $proof when the latest request was sent that has been answered
     */
    public function doubtLasts(Moment $proof): float
    {
        return max(0.0, Keepalive::silenceMax($this->deadPeerTimeout) - $proof->age());
    }

    /** How old a proof may be before a ping renews it, in seconds. */
    public function proofAge(): float
    {
        return Keepalive::budget($this->deadPeerTimeout) / 2;
    }

    /**
     * How long the answer to a ping is awaited, in seconds, before a server that has several places is
     * looked for at another one: the kernel takes longer to find out that nobody is here any more.
     */
    public function patience(): float
    {
        return max(self::PATIENCE_MIN, Keepalive::budget($this->deadPeerTimeout) / 4);
    }
}
