<?php

declare(strict_types=1);

namespace Lockd\Laravel;

use Illuminate\Console\Command;
use Illuminate\Console\CommandMutex;
use Lockd\Exception\LockdException;
use Lockd\Lock;

/**
 * The locks of commands that are `Isolatable`, for Laravel 9 and later. The lock of a command is
 * held by the process that runs it, and is free when that ends, also by SIGKILL.
 */
final class LockdCommandMutex implements CommandMutex
{
    /** @var array<array-key, Lock> by the lock's name */
    private array $held = [];

    /** @internal */
    public function __construct(private readonly SeparateLocks $locks)
    {
    }

    /**
     * Acquires the lock if it is free.
     *
     * @param Command $command
     * @return bool false: the command is running, here or elsewhere
     * @throws LockdException for example because there is no server; then the command does not run
     */
    public function create($command): bool
    {
        $name = self::nameOf($command);
        $lock = $this->locks->tryToAcquire($name);
        if ($lock === null) {
            return false;
        }
        $this->held[$name] = $lock;
        return true;
    }

    /**
     * Whether the command is running, here or elsewhere.
     *
     * @param Command $command
     * @throws LockdException
     */
    public function exists($command): bool
    {
        return $this->locks->isHeld(self::nameOf($command));
    }

    /**
     * Releases the lock if this process holds it.
     *
     * @param Command $command
     * @return bool false: this process does not hold it
     * @throws LockdException the lock was lost while the command ran
     */
    public function forget($command): bool
    {
        $name = self::nameOf($command);
        $lock = $this->held[$name] ?? null;
        unset($this->held[$name]);
        return $lock !== null && $lock->release();
    }

    /** @param Command $command */
    private static function nameOf($command): string
    {
        $name = 'framework/command-' . $command->getName();
        return method_exists($command, 'isolatableId') ? $name . '-' . $command->isolatableId() : $name;
    }
}
