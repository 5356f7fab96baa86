<?php

declare(strict_types=1);

namespace Lockd\Transport;

/**
 * What comes with a lock that was granted.
 *
 * @internal
 */
final class Grant
{
    public function __construct(
        /** The fencing token. */
        public readonly int $token,
        /** Whether the last exclusive holder vanished; null: it has to be asked for. */
        public readonly ?bool $orphaned,
    ) {
    }
}
