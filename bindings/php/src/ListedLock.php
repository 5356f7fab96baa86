<?php

declare(strict_types=1);

namespace Lockd;

use Lockd\Internal\Mode;
use Lockd\Message\Result;

/** A lock in a listing, with its holders and waiters. */
final class ListedLock
{
    /**
     * @param ?string $mode 'exclusive' or 'shared', with a limit or without; null: it has waiters
     *     but no holder yet
     * @param list<Party> $holders
     * @param list<Party> $waiters in the order of the queue
     * @param int $moreHolders how many holders are not listed because there are too many
     * @param int $moreWaiters how many waiters after these are not listed
     * @param ?int $limit how many holders the present ones allow: the smallest limit of them all.
     *     1: it is held exclusively; null: any number, or it has no holder
     */
    public function __construct(
        public readonly string $name,
        public readonly ?string $mode,
        public readonly array $holders,
        public readonly array $waiters,
        public readonly int $moreHolders = 0,
        public readonly int $moreWaiters = 0,
        public readonly ?int $limit = null,
    ) {
    }

    /**
     * From an entry of the `message` protocol's `list`.
     *
     * @internal
     */
    public static function fromMessage(Result $entry): self
    {
        $hex = $entry->text('lockNameHex') ?? '';
        $mode = $entry->text('mode');
        $holder = static fn (Result $holder): Party => Party::fromMessage($holder, $mode);
        return new self(
            (preg_match('/^(?:[0-9a-f]{2})+$/Di', $hex) ? hex2bin($hex) : false) ?: $entry->text('lockName') ?? '',
            $mode,
            array_map($holder, $entry->objects('holders')),
            array_map(Party::fromMessage(...), $entry->objects('waiters')),
            $entry->integer('moreHolders') ?? 0,
            $entry->integer('moreWaiters') ?? 0,
            Mode::limitIn($entry, $mode),
        );
    }
}
