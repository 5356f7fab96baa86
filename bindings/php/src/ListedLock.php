<?php

declare(strict_types=1);

namespace Lockd;

/** A lock in a listing, with everyone concerned. */
final class ListedLock
{
    /**
     * @param ?string $mode 'exclusive' or 'shared'; null: nobody holds it yet, but somebody waits for it
     * @param list<Party> $holders
     * @param list<Party> $waiters in the order of the queue
     */
    public function __construct(
        public readonly string $name,
        public readonly ?string $mode,
        public readonly array $holders,
        public readonly array $waiters,
    ) {
    }

    /**
     * From an entry of the `message` protocol's `list`.
     *
     * @param array<mixed> $entry
     * @internal
     */
    public static function fromMessage(array $entry): self
    {
        $name = isset($entry['lockNameHex']) ? hex2bin((string) $entry['lockNameHex']) : $entry['lockName'] ?? '';
        return new self(
            (string) $name,
            $entry['mode'] ?? null,
            array_map(Party::fromMessage(...), $entry['holders'] ?? []),
            array_map(Party::fromMessage(...), $entry['waiters'] ?? []),
        );
    }
}
