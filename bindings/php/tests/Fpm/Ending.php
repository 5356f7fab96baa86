<?php

declare(strict_types=1);

namespace Lockd\Tests\Fpm;

use Closure;
use Lockd\Lock;

/** One way for a request to end: what its script does for that, what others do, and what must come of it. */
final class Ending
{
    public Freed $streams = Freed::AtOnce;
    public Freed $ffi = Freed::AtOnce;
    /** Its pool of php-fpm; those of {@see Endings::POOLS}. */
    public string $pool = 'worker';
    /** Whether it ends while it waits for the lock, and not while it holds it. */
    public bool $waits = false;
    /** Whether its client goes away. */
    public bool $hangsUp = false;
    /** Whether its worker ends, too. */
    public bool $dies = false;
    /** Whether it leaves a process behind, which has a copy of every descriptor that is not kept from it. */
    public bool $background = false;
    /** What its worker gets while it waits. */
    public ?int $signal = null;
    /** @var ?Closure(Script): mixed what the script does before it connects */
    public ?Closure $before = null;
    /** @var ?Closure(Script, ?Lock): mixed what it does once it holds the lock */
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
