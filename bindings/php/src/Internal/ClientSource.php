<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Client;
use Lockd\Exception\ConnectException;
use Lockd\Exception\InvalidArgumentException;
use Lockd\Message\Address;
use Lockd\Message\Connection;

/**
 * The client of an adapter to a framework: one that it was given, or one that connects when it is first needed. Of the
 * latter there is a new one when the old one's connection is gone, or is the parent process': locks of the old one
 * stay what they are, its own, and lost with it.
 *
 * @internal
 */
final class ClientSource
{
    private ?Client $client = null;
    private ?string $url = null;

    /**
     * @param Client|string $client a client, or the address for {@see Client::connect()}
     * @throws InvalidArgumentException for an address that makes no sense
     */
    public function __construct(
        Client|string $client,
        private readonly ?string $owner = null,
        private readonly float $timeout = 5.0,
    ) {
        if ($client instanceof Client) {
            $this->client = $client;
        } else {
            Address::parseList($client);
            Owner::label($owner);
            Connection::mustBeLimited($timeout);
            $this->url = $client;
        }
    }

    /** @throws ConnectException */
    public function client(): Client
    {
        // One that still holds something on one of several servers has to go on: who has that would wait for himself.
        if ($this->url !== null && ($this->client === null || $this->client->isSpent())) {
            $this->client = Client::connect($this->url, $this->owner, $this->timeout);
        }
        assert($this->client !== null);
        return $this->client;
    }
}
