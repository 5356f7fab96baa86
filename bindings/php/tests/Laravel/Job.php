<?php

declare(strict_types=1);

namespace Lockd\Tests\Laravel;

/** A job that counts how often it is put back into its queue. */
final class Job
{
    public int $released = 0;

    public function release(int $seconds): void
    {
        $this->released++;
    }
}
