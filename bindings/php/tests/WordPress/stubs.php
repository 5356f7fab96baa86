<?php

/**
 * The few WordPress functions that are needed, with WordPress's behaviour where it matters: hooks
 * run by priority, a filter passes on its first argument, and DOING_CRON says whether cron runs.
 */

declare(strict_types=1);

/** @var array<string, array<int, list<array{callable, int}>>> $hooks */
$hooks = [];

function add_filter(string $hook, callable $callback, int $priority = 10, int $acceptedArgs = 1): bool
{
    $GLOBALS['hooks'][$hook][$priority][] = [$callback, $acceptedArgs];
    return true;
}

function add_action(string $hook, callable $callback, int $priority = 10, int $acceptedArgs = 1): bool
{
    return add_filter($hook, $callback, $priority, $acceptedArgs);
}

/** @param list<mixed> $arguments */
function do_action_ref_array(string $hook, array $arguments): void
{
    $callbacks = $GLOBALS['hooks'][$hook] ?? [];
    ksort($callbacks);
    foreach (array_merge(...$callbacks) as [$callback, $accepted]) {
        $callback(...array_slice($arguments, 0, $accepted));
    }
}

function do_action(string $hook, mixed ...$arguments): void
{
    do_action_ref_array($hook, $arguments === [] ? [''] : $arguments);
}

function apply_filters(string $hook, mixed $value): mixed
{
    $callbacks = $GLOBALS['hooks'][$hook] ?? [];
    ksort($callbacks);
    foreach (array_merge(...$callbacks) as [$callback]) {
        $value = $callback($value);
    }
    return $value;
}

function wp_doing_cron(): bool
{
    return defined('DOING_CRON') && DOING_CRON;
}
