<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\RefusedException;
use Lockd\Internal\Deadline;
use Lockd\Internal\Mode;
use Lockd\Message\Address;
use Lockd\Message\Connection;
use Lockd\Message\Result;
use Throwable;

/**
 * A connection to a lockd after the hello, and what the server has said in it. Knows nothing of
 * the other servers and of the locks.
 *
 * @internal
 */
final class ServerConnection
{
    /** The longest name of an owner that a server accepts. */
    private const OWNER_BYTES_MAX = 256;

    private function __construct(
        public readonly Connection $connection,
        /** Whether the kernel watches the connection. */
        public readonly bool $isWatched,
        /** Whether the server knows limited locks. */
        private readonly bool $knowsLimits,
    ) {
    }

    /**
     * @param float $within for connecting, in seconds
     * @param float $timeout for each answer that the server gives at once, in seconds
     * @throws ConnectException
     */
    public static function open(Address $address, ?string $owner, float $within, float $timeout): self
    {
        $deadline = Deadline::in($within);
        $connection = Connection::open($address, $within, $timeout);
        try {
            return self::hello($connection, $owner, max(0.001, $deadline->remaining()));
        } catch (Throwable $e) {
            // Do not leave this to the destructor: the exception's trace may refer to the
            // connection.
            $connection->end();
            throw $e;
        }
    }

    /**
     * The mode as the parameters of a request.
     *
     * @return array<string, int|string>
     * @throws RefusedException the server does not know limited locks: it would ignore the limit,
     *     and take the request for one of an exclusive lock
     */
    public function parameters(Mode $mode): array
    {
        if (!$mode->isLimited()) {
            return ['mode' => $mode->isExclusive() ? 'exclusive' : 'shared'];
        }
        if (!$this->knowsLimits) {
            throw new RefusedException("{$this->connection->address->text}: the server is older than limited locks");
        }
        return ['limit' => (int) $mode->holdersMax];
    }

    /**
     * Exchanges the hello, and sets the client's name.
     *
     * @throws ConnectException
     */
    private static function hello(Connection $connection, ?string $owner, float $within): self
    {
        $identity = ['client' => 'lockd-php', 'version' => \Lockd\Client::VERSION];
        try {
            $secret = $connection->address->secret();
            $hello = $connection->send('hello', $secret === null ? $identity : $identity + ['authToken' => $secret]);
            if ($owner !== null) {
                // The answer does not matter: the server may be configured not to keep names.
                $connection->forget($connection->send('identify', ['name' => self::shortened($owner)]));
            }
            $answer = $connection->await($hello, $within, dispatches: true)->object('result');
        } catch (ConnectionLostException $e) {
            throw new ConnectException($e->getMessage(), 0, $e, isAbsence: $connection->speaksMessage());
        }
        if ($answer->text('status') === 'refused') {
            throw self::refusal($connection, $answer, $secret !== null);
        }
        $deadPeerTimeout = $answer->object('keepalive')->integer('deadPeerTimeout');
        if ($answer->text('status') !== 'ok' || $deadPeerTimeout === null) {
            $where = $connection->address->text;
            throw new ConnectException("the server at $where speaks `message`, but is not lockd");
        }
        $knowsLimits = in_array('limit', $answer->texts('features'), true);
        return new self($connection, $connection->keepAlive($deadPeerTimeout), $knowsLimits);
    }

    private static function refusal(Connection $connection, Result $answer, bool $hasSecret): ConnectException
    {
        $reason = "{$connection->address->text} refuses this client: "
            . ($answer->text('reason') ?? 'without a reason');
        if ($answer->text('cause') === 'stopping') {
            return new ConnectException($reason, isAbsence: true);
        }
        return new ConnectException($reason . ($hasSecret
            ? ' (the secret is from the file that auth-token-file= or LOCKD_AUTH_TOKEN_FILE names)'
            : ' (name the file with the secret: ?auth-token-file=FILE after the address, or LOCKD_AUTH_TOKEN_FILE)'));
    }

    /** The owner's name as a server accepts it: the complete characters in the first 256 bytes. */
    private static function shortened(string $owner): string
    {
        $name = substr($owner, 0, self::OWNER_BYTES_MAX);
        // At most three bytes of a character that was cut are left.
        for ($cut = 0; $cut < 3 && preg_match('//u', $name) !== 1; $cut++) {
            $name = substr($name, 0, -1);
        }
        return $name;
    }
}
