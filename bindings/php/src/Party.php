<?php

declare(strict_types=1);

namespace Lockd;

use Lockd\Message\Result;

/** Someone who holds a lock or waits for it. */
final class Party
{
    /**
     * @param string $address of its connection, as the server sees it
     * @param ?string $owner what it calls itself
     * @param ?int $token its fencing token; null: it waits
     * @param ?string $mode what it waits for, 'exclusive' or 'shared'; null: it holds the lock
     * @param float $seconds for how long it has held the lock, or waited for it
     */
    public function __construct(
        public readonly string $address,
        public readonly ?string $owner,
        public readonly ?int $token,
        public readonly ?string $mode,
        public readonly float $seconds,
    ) {
    }

    /** @internal */
    public static function fromMessage(Result $party): self
    {
        return new self(
            $party->text('address') ?? '',
            $party->text('name'),
            $party->integer('token'),
            $party->text('mode'),
            $party->number('heldFor') ?? $party->number('waitingFor') ?? 0.0,
        );
    }
}
