<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use Closure;
use Lockd\Lock;

/**
 * One way in which a request can end: what its script and others do, and when its lock must be
 * free.
 */
final class Ending
{
    public Freed $streams = Freed::AtOnce;
    public Freed $ffi = Freed::AtOnce;
    /** Its pool of php-fpm, one of {@see Endings::POOLS}. */
    public string $pool = 'worker';
    /** Whether it ends while it waits for the lock; otherwise it ends while it holds it. */
    public bool $waits = false;
    /** Whether its HTTP client disconnects. */
    public bool $hangsUp = false;
    /** Whether its worker process ends, too. */
    public bool $dies = false;
    /**
     * Whether it leaves a background process, which inherits every descriptor that is not
     * close-on-exec.
     */
    public bool $background = false;
    /** The signal that its worker gets while it waits. */
    public ?int $signal = null;
    /** @var ?Closure(Script): mixed what the script does before it connects */
    public ?Closure $before = null;
    /** @var ?Closure(Script, ?Lock): mixed what the script does when it holds the lock */
    public ?Closure $then = null;

    public function __construct(public readonly string $name)
    {
    }

    /** @param Closure(Script): mixed $before */
    public function before(Closure $before): self
    {
        $this->before = $before;
        return $this;
    }

    /** @param Closure(Script, ?Lock): mixed $then */
    public function then(Closure $then): self
    {
        $this->then = $then;
        return $this;
    }

    public function in(string $pool): self
    {
        $this->pool = $pool;
        return $this;
    }

    public function waits(): self
    {
        $this->waits = true;
        return $this;
    }

    public function hangsUp(): self
    {
        $this->hangsUp = true;
        return $this;
    }

    public function leavesProcess(): self
    {
        $this->background = true;
        return $this;
    }

    public function dies(): self
    {
        $this->dies = true;
        return $this;
    }

    public function signal(int $signal): self
    {
        $this->signal = $signal;
        return $this;
    }

    public function freed(Freed $streams, Freed $ffi): self
    {
        $this->streams = $streams;
        $this->ffi = $ffi;
        return $this;
    }
}
