<?php

declare(strict_types=1);

namespace Lockd\Internal;

use Lockd\Exception\AlreadyHeldException;
use Lockd\Exception\LockdException;
use Lockd\Lock;

/**
 * Limited locks for the framework adapters, whose users may take several slots of one name in one
 * process. To the server a client is one owner, with one slot of a name at most. So each further
 * slot comes from a further client. Knows nothing of the frameworks.
 *
 * @internal
 */
final class Slots
{
    /** @var non-empty-list<ClientSource> */
    private array $sources;

    /** @param ClientSource $first the source of the client for the first slot of each name */
    public function __construct(ClientSource $first)
    {
        $this->sources = [$first];
    }

    /**
     * @param float $timeout in seconds; 0.0: do not wait
     * @return ?Lock a slot; null: not granted within the time limit
     * @throws AlreadyHeldException this would wait for a slot of these clients themselves; or the
     *     adapter was given one client, and that has a slot already
     * @throws LockdException
     */
    public function acquire(string $name, int $limit, float $timeout): ?Lock
    {
        [$owners, $others] = [[], []];
        foreach ($this->sources as $source) {
            $source->isOwnerOf($name) ? $owners[] = $source : $others[] = $source;
        }
        if ($owners !== []) {
            self::mustNotWaitForThese($owners, $name, $limit);
        }
        return ($others[0] ?? $this->another($name))->client()->acquire($name, $timeout, atMost: $limit);
    }

    /** @param non-empty-list<ClientSource> $owners the sources of the clients that have a slot already */
    private static function mustNotWaitForThese(array $owners, string $name, int $limit): void
    {
        // The limit in force may be lower than the one that is asked for now.
        $inForce = $owners[0]->client()->inspect($name)->limit ?? $limit;
        if (count($owners) >= min($limit, $inForce)) {
            throw new AlreadyHeldException("this process holds all of \"$name\" already, and would wait for itself");
        }
    }

    private function another(string $name): ClientSource
    {
        $another = $this->sources[0]->another();
        if ($another === null) {
            throw new AlreadyHeldException("the client has a slot of \"$name\" already: a client is one owner");
        }
        $this->sources[] = $another;
        return $another;
    }
}
