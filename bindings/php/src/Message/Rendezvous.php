<?php

declare(strict_types=1);

namespace Lockd\Message;

/**
 * Decides which of several servers a name belongs to, in the same way as every other client
 * (docs/protocol.md, section 5). Knows nothing of connections.
 *
 * @internal
 */
final class Rendezvous
{
    /** @param non-empty-list<string> $servers their addresses, in any order */
    public static function choose(array $servers, string $name): string
    {
        $best = null;
        foreach ($servers as $server) {
            // Hexadecimal of equal length and in lower case, so that comparing the texts compares
            // the numbers.
            $score = hash('fnv1a64', hash('fnv1a64', $server . "\0" . $name, true));
            $wins = $best === null || strcmp($score, $best[0]) > 0
                || ($score === $best[0] && strcmp($server, $best[1]) < 0);
            if ($wins) {
                $best = [$score, $server];
            }
        }
        assert($best !== null);
        return $best[1];
    }
}
