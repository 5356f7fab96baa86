<?php

declare(strict_types=1);

namespace Lockd\Message;

use Closure;
use Lockd\Exception\ConnectException;
use Lockd\Internal\Deadline;
use Lockd\Internal\Signals;
use Throwable;

/**
 * Connects to a server at the one of its places where it is active. Goes on from a place that cannot
 * be reached, or where a standby answers; anything else that speaks against this client is a mistake,
 * which no other place corrects. Knows nothing of what is sent on the connection.
 *
 * @internal
 */
final class Places
{
    /** The longest time for one place while others are left, in seconds. */
    private const TIME_MAX = 2.0;

    /**
     * Tries the places in order, each for an equal share of the time that is left.
     *
     * @template T
     * @param float $within for connecting and greeting, in seconds
     * @param float $timeout for each answer that the server gives at once, in seconds
     * @param Closure(Connection, float): T $greet is called for each connection, with the time that
     *     it has, in seconds. Throws a ConnectException if the server cannot be used there
     * @return T
     * @throws ConnectException
     */
    public static function open(Address $address, float $within, float $timeout, Closure $greet): mixed
    {
        $deadline = Deadline::in($within);
        $places = $address->places();
        $left = count($places);
        [$reasons, $hasStandby, $isAbsence, $last] = [[], false, false, null];
        foreach ($places as $place) {
            // As much as an equal part of the whole, since a resolver may have taken longer.
            $share = max($deadline->remaining() / $left, $within / count($places));
            $share = --$left === 0 ? $share : min($share, self::TIME_MAX);
            $end = Deadline::in($share);
            $connection = null;
            try {
                $connection = Connection::open($place, $share, $timeout);
                return $greet($connection, max(0.001, $end->remaining()));
            } catch (Throwable $e) {
                // Do not leave this to the destructor: the exception's trace may refer to the
                // connection.
                $connection?->end();
                $isMistake = $connection !== null && $e instanceof ConnectException && !$e->isAbsence;
                // A signal handler may use clients of its own.
                if (!$e instanceof ConnectException || Signals::threw($e) || $isMistake || !isset($places[1])) {
                    throw $e;
                }
                $standby = $connection?->standby();
                $reasons[] = self::reason($place, $standby ?? $e->getMessage());
                $hasStandby = $hasStandby || $standby !== null;
                // A host may be unknown while it is down.
                $isAbsence = $isAbsence || $e->isAbsence;
                $last = $e;
            }
        }
        $why = match (true) {
            $hasStandby => 'no server of the group is active',
            $isAbsence => 'no place of the group answers',
            default => 'no place of the group is known',
        };
        $reason = Dialer::FAILED . "$address->text: $why: " . self::together($reasons);
        throw new ConnectException($reason, 0, $last, $isAbsence);
    }

    /** Why one place could not be used, beginning with its host and port. */
    private static function reason(Address $place, string $why): string
    {
        foreach ([Dialer::FAILED, "$place->text: "] as $start) {
            $why = str_starts_with($why, $start) ? substr($why, strlen($start)) : $why;
        }
        return explode('://', $place->text, 2)[1] . ": $why";
    }

    /**
     * The reasons in one text, which says only once what may be wrong with a silent server.
     *
     * @param array<array-key, string> $reasons
     */
    public static function together(array $reasons): string
    {
        $parts = explode(Connection::UNANSWERED, implode('; ', $reasons));
        $first = $parts[0];
        unset($parts[0]);
        return $parts === [] ? $first : $first . Connection::UNANSWERED . implode('', $parts);
    }
}
