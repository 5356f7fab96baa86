<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Exception\LibraryException;
use Lockd\Message\Address;
use Lockd\Message\Connection;

/**
 * The client of a framework adapter: either a client that the adapter was given, or one that is
 * connected when it is first needed. The latter is replaced when its connection is lost or belongs
 * to the parent process. Locks of the old client stay with the old client and are lost with it.
 *
 * @internal
 */
final class ClientSource
{
    private ?Client $client = null;
    private ?string $url = null;
    private bool $isTls = false;

    /**
     * @param Client|string $client a client, or the address for {@see Client::connect()}; with
     *     `tls://` for {@see Client::connectByFfi()}
     * @throws InvalidArgumentException for an address that is not valid
     */
    public function __construct(
        Client|string $client,
        private readonly ?string $owner = null,
        private readonly float $timeout = 5.0,
    ) {
        if ($client instanceof Client) {
            $this->client = $client;
        } else {
            foreach (Address::parseList($client) as $address) {
                $this->isTls = $this->isTls || $address->isTls;
            }
            Owner::label($owner);
            Connection::mustBeLimited($timeout);
            $this->url = $client;
        }
    }

    /** A source of other clients with the same address; null: this one was given its client. */
    public function another(): ?self
    {
        return $this->url === null ? null : new self($this->url, $this->owner, $this->timeout);
    }

    /**
     * Whether its client holds the lock or waits for it, as far as is known without asking the
     * server; does not connect.
     */
    public function isOwnerOf(string $name): bool
    {
        return $this->client !== null && !$this->isReplaceable() && $this->client->isOwnerOf($name);
    }

    /**
     * @throws ConnectException
     * @throws LibraryException a `tls://` address, and liblockd cannot be used
     */
    public function client(): Client
    {
        if ($this->url !== null && ($this->client === null || $this->isReplaceable())) {
            // Only liblockd speaks TLS.
            $this->client = $this->isTls
                ? Client::connectByFfi($this->url, $this->owner, $this->timeout)
                : Client::connect($this->url, $this->owner, $this->timeout);
        }
        assert($this->client !== null);
        return $this->client;
    }

    private function isReplaceable(): bool
    {
        // A client that lost one of several servers but still holds a lock on another must be kept:
        // with a new client this process would wait for its own lock.
        return $this->url !== null && $this->client?->isSpent() === true;
    }
}
