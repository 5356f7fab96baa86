<?php

declare(strict_types=1);

namespace Illuminate\Console;

/** What Laravel 9 and later ask of a mutex for isolated commands. Laravel 8 does not have it. */
interface CommandMutex
{
    /**
     * @param Command $command
     * @return bool
     */
    public function create($command);

    /**
     * @param Command $command
     * @return bool
     */
    public function exists($command);

    /**
     * @param Command $command
     * @return bool
     */
    public function forget($command);
}
