<?php

declare(strict_types=1);

namespace Lockd\Message;

/**
 * The result of a request, or an object in it, with typed access: a field of another type counts as
 * missing.
 *
 * @internal
 */
final class Result
{
    /** @param array<array-key, mixed> $fields */
    public function __construct(public readonly array $fields)
    {
    }

    public function text(string $key): ?string
    {
        $value = $this->fields[$key] ?? null;
        return is_string($value) ? $value : null;
    }

    public function integer(string $key): ?int
    {
        $value = $this->fields[$key] ?? null;
        return is_int($value) ? $value : null;
    }

    public function number(string $key): ?float
    {
        $value = $this->fields[$key] ?? null;
        return is_int($value) || is_float($value) ? (float) $value : null;
    }

    /** Whether the field exists and is true. */
    public function flag(string $key): bool
    {
        return ($this->fields[$key] ?? null) === true;
    }

    public function object(string $key): self
    {
        $value = $this->fields[$key] ?? null;
        return new self(is_array($value) ? $value : []);
    }

    /** @return list<self> the objects in an array */
    public function objects(string $key): array
    {
        $objects = array_filter($this->object($key)->fields, is_array(...));
        return array_map(static fn (array $object): self => new self($object), array_values($objects));
    }

    /** @return list<string> */
    public function texts(string $key): array
    {
        return array_values(array_filter($this->object($key)->fields, is_string(...)));
    }
}
