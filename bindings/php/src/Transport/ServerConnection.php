<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Exception\ConnectException;
use Lockd\Exception\ConnectionLostException;
use Lockd\Exception\RefusedException;
use Lockd\Internal\Mode;
use Lockd\Internal\Signals;
use Lockd\Message\Address;
use Lockd\Message\Connection;
use Lockd\Message\Places;
use Lockd\Message\Result;

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
        /** What the session resumes with; null: it was not asked for, or the server does not offer it. */
        public readonly ?Ticket $ticket,
    ) {
    }

    /**
     * @param float $within for connecting, in seconds
     * @param float $timeout for each answer that the server gives at once, in seconds
     * @throws ConnectException
     */
    public static function open(Address $address, ?string $owner, float $within, float $timeout): self
    {
        return Places::open($address, $within, $timeout, static fn (Connection $connection, float $left): self =>
            self::hello($connection, $owner, $left));
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
        if ($mode->isLimited() && !$this->knowsLimits) {
            throw new RefusedException("{$this->connection->address->text}: the server is older than limited locks");
        }
        return self::parametersOf($mode);
    }

    /**
     * The mode as the parameters of a request to a server that knows limited locks.
     *
     * @return array<string, int|string>
     */
    public static function parametersOf(Mode $mode): array
    {
        return $mode->isLimited()
            ? ['limit' => (int) $mode->holdersMax]
            : ['mode' => $mode->isExclusive() ? 'exclusive' : 'shared'];
    }

    /** @return array<string, string> a parameter that is a name, or a part of one */
    public static function key(string $key, string $value): array
    {
        // JSON text must be UTF-8, so other bytes are sent in hexadecimal.
        return preg_match('//u', $value) === 1 ? [$key => $value] : [$key . 'Hex' => bin2hex($value)];
    }

    /**
     * Exchanges the hello, and sets the client's name.
     *
     * @throws ConnectException
     */
    private static function hello(Connection $connection, ?string $owner, float $within): self
    {
        try {
            $parameters = self::greeting($connection->address);
            $hello = $connection->send('hello', $parameters);
            self::identify($connection, $owner);
            $answer = $connection->await($hello, $within, dispatches: true)->object('result');
        } catch (ConnectionLostException $e) {
            if (Signals::threw($e)) {
                // A signal handler may use clients of its own.
                throw $e;
            }
            throw new ConnectException($e->getMessage(), 0, $e, isAbsence: $connection->speaksMessage());
        }
        return self::accepted($connection, $answer, isset($parameters['authToken']));
    }

    /**
     * The parameters that a hello and a resume have in common.
     *
     * @return array<string, string>
     * @throws ConnectException the file with the secret cannot be read
     */
    public static function identity(Address $address): array
    {
        $secret = $address->secret();
        return ['client' => 'lockd-php', 'version' => \Lockd\Client::VERSION]
            + ($secret === null ? [] : ['authToken' => $secret]);
    }

    /**
     * The parameters of a hello.
     *
     * @return array<string, bool|string>
     * @throws ConnectException the file with the secret cannot be read
     */
    public static function greeting(Address $address): array
    {
        return self::identity($address) + ($address->resumes ? ['resumable' => true] : []);
    }

    /** Tells the server what the client is called in listings. */
    public static function identify(Connection $connection, ?string $owner): void
    {
        if ($owner !== null) {
            // The answer does not matter: the server may be configured not to keep names.
            $connection->forget($connection->post('identify', ['name' => self::shortened($owner)]));
        }
    }

    /**
     * The connection, if the server has answered the hello or the resume with ok.
     *
     * @throws ConnectException it has not
     */
    public static function accepted(Connection $connection, Result $answer, bool $hasSecret): self
    {
        if ($answer->text('status') === 'refused') {
            throw self::refusal($connection, $answer, $hasSecret);
        }
        $deadPeerTimeout = $answer->object('keepalive')->integer('deadPeerTimeout');
        if ($answer->text('status') !== 'ok' || $deadPeerTimeout === null) {
            $where = $connection->address->text;
            throw new ConnectException("the server at $where speaks `message`, but is not lockd");
        }
        $knowsLimits = in_array('limit', $answer->texts('features'), true);
        $ticket = $connection->address->resumes ? Ticket::in($answer, $deadPeerTimeout) : null;
        if ($ticket !== null) {
            $connection->keepOpen();
        }
        return new self($connection, $connection->keepAlive($deadPeerTimeout), $knowsLimits, $ticket);
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
