<?php

declare(strict_types=1);

namespace Lockd\Transport;

use Lockd\Internal\Mode;

/**
 * What a session holds on one server, as far as it knows: what it claims when it resumes. Knows
 * nothing of connections.
 *
 * @internal
 */
final class Holdings
{
    /** @var array<array-key, array{Mode, int}> the mode and the fencing token, by name */
    private array $held = [];
    /** @var array<array-key, true> names whose release the server has not confirmed */
    private array $unconfirmed = [];

    public function granted(string $name, Mode $mode, int $token): void
    {
        $this->held[$name] = [$mode, $token];
        // The server handles requests in their order: an earlier release was done before this.
        unset($this->unconfirmed[$name]);
    }

    /** The lock may be held in this mode already, which allows more holders: no more is claimed. */
    public function weaken(string $name, Mode $mode): void
    {
        if (isset($this->held[$name])) {
            $this->held[$name][0] = $mode;
        }
    }

    /** From now on the lock is not claimed any more. */
    public function giveUp(string $name): void
    {
        unset($this->held[$name]);
        $this->unconfirmed[$name] = true;
    }

    public function released(string $name): void
    {
        unset($this->unconfirmed[$name]);
    }

    /** Whether nothing is at stake if the session ends. */
    public function isEmpty(): bool
    {
        return $this->held === [] && $this->unconfirmed === [];
    }

    /** @return list<array<string, int|string>> the claims, as the `message` protocol writes them */
    public function claims(): array
    {
        $claims = [];
        foreach ($this->held as $name => [$mode, $token]) {
            $claims[] = ServerConnection::key('lockName', (string) $name)
                + ServerConnection::parametersOf($mode) + ['token' => $token];
        }
        return $claims;
    }

    /** @return list<string> the names that are claimed */
    public function names(): array
    {
        return array_map(static fn (int|string $name): string => (string) $name, array_keys($this->held));
    }

    /**
     * The session was resumed with these claims: what else was released is free now.
     *
     * @param list<string> $claimed
     * @return list<string> the names that were given up after they had been claimed
     */
    public function resumed(array $claimed): array
    {
        $givenUp = [];
        foreach ($claimed as $name) {
            if (isset($this->unconfirmed[$name])) {
                $givenUp[] = $name;
            }
        }
        $this->unconfirmed = [];
        foreach ($givenUp as $name) {
            $this->unconfirmed[$name] = true;
        }
        return $givenUp;
    }
}
