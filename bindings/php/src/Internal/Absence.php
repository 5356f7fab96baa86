<?php

declare(strict_types=1);

namespace Lockd\Internal;

/**
 * Tells from the system's errors whether a server is absent now and may be there later. Anything
 * else is a mistake, and the next attempt will fail in the same way. Knows numbers and texts only.
 *
 * @internal
 */
final class Absence
{
    /** Linux's numbers; PHP has names for them only with ext-sockets. */
    private const ERRNOS = [
        2, // ENOENT: there is no such Unix socket
        4, // EINTR: a signal has ended the attempt
        11, // EAGAIN: the queue of the Unix socket is full
        32, // EPIPE
        100, // ENETDOWN
        101, // ENETUNREACH
        103, // ECONNABORTED
        104, // ECONNRESET
        107, // ENOTCONN
        110, // ETIMEDOUT
        111, // ECONNREFUSED
        113, // EHOSTUNREACH
        115, // EINPROGRESS: what PHP may report for EINTR
    ];

    public static function isErrno(int $errno): bool
    {
        return in_array($errno, self::ERRNOS, true);
    }

    /**
     * Whether the resolver could not be reached, as opposed to not knowing the name. Its error
     * comes only as a text of the C library (glibc, musl).
     */
    public static function isOfResolver(string $error): bool
    {
        return preg_match('/(?:Temporary failure in name resolution|Try again)$/D', $error) === 1;
    }

    /**
     * Whether liblockd's text for a failed connection tells of an absent server: the C interface
     * has no status for it. An unknown text counts as a mistake: the caller reads it at once, and
     * does not wait for nothing.
     */
    public static function isInText(string $error): bool
    {
        // The errors of several servers: one mistake among them is a mistake.
        foreach (preg_split('/; (?=\S+ cannot be reached: |no session on )/', $error) ?: [] as $one) {
            if (!self::isInTextOfOne($one)) {
                return false;
            }
        }
        return true;
    }

    private static function isInTextOfOne(string $error): bool
    {
        // Not every error of the system: a file with a certificate or a secret may be missing.
        $failed = '/(?:cannot be reached|(?:reading from|writing to|waiting for) the server failed): '
            . '[^:]*\(os error (\d+)\)$/D';
        if (preg_match($failed, $error, $parts)) {
            return self::isErrno((int) $parts[1]);
        }
        // One place that is absent is enough: the server may be active there later.
        $group = '/^\S+ cannot be reached: no (?:server of the group is active|place of the group answers): /';
        if (preg_match($group, $error)) {
            return true;
        }
        $texts = '/: (?:it has not answered in time|no answer to the TLS handshake in time|nothing was heard of the '
            . 'server|this server is a standby of the cluster|the server closed the connection|the server reported an '
            . 'error|the server is stopping|(?:connection )?timed out$)/D';
        return self::isOfResolver($error) || preg_match($texts, $error) === 1;
    }
}
