<?php

declare(strict_types=1);

namespace Lockd;

use Lockd\Internal\Mode;
use Lockd\Message\Result;

/** A holder or a waiter of a lock. */
final class Party
{
    /**
     * @param string $address address of the client's connection, as the server sees it
     * @param ?string $owner the name that the client has given itself
     * @param ?int $token the holder's fencing token; null: this is a waiter
     * @param ?string $mode the mode that a waiter waits for, 'exclusive' or 'shared', with a limit
     *     or without; null: this is a holder
     * @param float $seconds how long it has held the lock or waited for it
     * @param ?int $limit how many holders it allows, or is going to allow. 1: exclusive; null: any
     *     number
     */
    public function __construct(
        public readonly string $address,
        public readonly ?string $owner,
        public readonly ?int $token,
        public readonly ?string $mode,
        public readonly float $seconds,
        public readonly ?int $limit = null,
    ) {
    }

    /**
     * @param ?string $lockMode the mode of a lock whose holder this is
     * @internal
     */
    public static function fromMessage(Result $party, ?string $lockMode = null): self
    {
        return new self(
            $party->text('address') ?? '',
            $party->text('name'),
            $party->integer('token'),
            $party->text('mode'),
            $party->number('heldFor') ?? $party->number('waitingFor') ?? 0.0,
            Mode::limitIn($party, $party->text('mode') ?? $lockMode),
        );
    }
}
