<?php

/**
 * The few functions of WordPress that are needed, and WP-CLI, with their behaviour where it matters:
 * hooks run by priority, a filter passes on its first argument, and DOING_CRON says whether cron
 * runs. Options are in a file, the database, of which each process keeps a copy from its first look
 * on. All events are in one of them, which each change writes as a whole.
 */

declare(strict_types=1);

// Set as globals also if a function includes this file.
/** @var array<string, array<int, list<array{callable, int}>>> */
$GLOBALS['hooks'] = [];
/** The hooks that run now. */
$GLOBALS['wp_current_filter'] = [];
/** The file with the options. */
$GLOBALS['database'] = '/dev/null';
/** @var ?array<string, string> this process's copy of the options */
$GLOBALS['alloptions'] = null;

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
    $GLOBALS['wp_current_filter'][] = $hook;
    foreach (array_merge(...$callbacks) as [$callback, $accepted]) {
        $callback(...array_slice($arguments, 0, $accepted));
    }
    array_pop($GLOBALS['wp_current_filter']);
}

function do_action(string $hook, mixed ...$arguments): void
{
    do_action_ref_array($hook, $arguments === [] ? [''] : $arguments);
}

function apply_filters(string $hook, mixed $value): mixed
{
    $callbacks = $GLOBALS['hooks'][$hook] ?? [];
    ksort($callbacks);
    $GLOBALS['wp_current_filter'][] = $hook;
    foreach (array_merge(...$callbacks) as [$callback]) {
        $value = $callback($value);
    }
    array_pop($GLOBALS['wp_current_filter']);
    return $value;
}

function doing_action(string $hook): bool
{
    return in_array($hook, $GLOBALS['wp_current_filter'], true);
}

function wp_doing_cron(): bool
{
    return defined('DOING_CRON') && DOING_CRON;
}

/** @return array<string, string> */
function options_in_database(): array
{
    return json_decode((string) file_get_contents($GLOBALS['database']), true) ?? [];
}

/** @return array<string, mixed> */
function wp_load_alloptions(): array
{
    return $GLOBALS['alloptions'] ??= options_in_database();
}

function wp_cache_delete(string $key, string $group): bool
{
    if ([$key, $group] === ['alloptions', 'options']) {
        $GLOBALS['alloptions'] = null;
    }
    return true;
}

function update_option(string $name, string $value, bool $autoload): bool
{
    $GLOBALS['alloptions'] = [$name => $value] + wp_load_alloptions();
    file_put_contents($GLOBALS['database'], json_encode([$name => $value] + options_in_database()));
    return $autoload;
}

function delete_option(string $name): bool
{
    return update_option($name, '', true);
}

/** @return array<int, array<array-key, array<string, array{schedule: string|false, args: list<mixed>}>>> */
function _get_cron_array(): array
{
    return json_decode(wp_load_alloptions()['cron'] ?? '', true) ?? [];
}

/** @param array<mixed> $events */
function _set_cron_array(array $events): void
{
    ksort($events);
    update_option('cron', (string) json_encode(array_filter(array_map('array_filter', $events))), true);
}

/** @return array<mixed> */
function wp_get_ready_cron_jobs(): array
{
    $due = static fn (int $time): bool => $time <= time();
    return apply_filters('pre_get_ready_cron_jobs', null)
        ?? array_filter(_get_cron_array(), $due, ARRAY_FILTER_USE_KEY);
}

/** @param list<mixed> $args */
function wp_schedule_event(int $time, string|false $schedule, string $hook, array $args): void
{
    $events = _get_cron_array();
    $events[$time][$hook][md5(serialize($args))] = ['schedule' => $schedule, 'args' => $args];
    _set_cron_array($events);
}

/** @param list<mixed> $args */
function wp_reschedule_event(int $time, string $schedule, string $hook, array $args): void
{
    if (apply_filters('pre_reschedule_event', null) === null) {
        wp_schedule_event(time() + 3600, $schedule, $hook, $args);
    }
}

/** @param list<mixed> $args */
function wp_unschedule_event(int $time, string $hook, array $args): void
{
    if (apply_filters('pre_unschedule_event', null) === null) {
        $events = _get_cron_array();
        unset($events[$time][$hook][md5(serialize($args))]);
        _set_cron_array($events);
    }
}

function current_user_can(string $capability): bool
{
    return in_array($capability, $GLOBALS['capabilities'] ?? [], true);
}

function esc_html(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES);
}

function wp_date(string $format, int $time): string
{
    return gmdate($format, $time);
}

// phpcs:disable PSR1.Classes.ClassDeclaration.MissingNamespace -- the names are WP-CLI's
// phpcs:disable Squiz.Classes.ValidClassName.NotCamelCaps, PSR1.Methods.CamelCapsMethodName

/** WP-CLI: it prints what it says, and an error or halt() ends the script. */
final class WP_CLI
{
    /** @var array<string, list<callable>> */
    private static array $callbacks = [];
    /** @var array<string, mixed> */
    private static array $options = [];

    public static function add_hook(string $when, callable $callback): void
    {
        self::$callbacks[$when][] = $callback;
    }

    /** @param array<string, mixed> $options */
    public static function invoke(string $command, array $options, callable $body): void
    {
        self::$options = $options;
        foreach (['before_invoke', 'after_invoke'] as $when) {
            foreach (self::$callbacks["$when:$command"] ?? [] as $callback) {
                $callback($command);
            }
            if ($when === 'before_invoke') {
                $body();
            }
        }
    }

    public static function get_runner(): object
    {
        return (object) ['assoc_args' => self::$options];
    }

    public static function log(string $text): void
    {
        echo $text, "\n";
    }

    public static function error(string $text): never
    {
        echo "Error: $text\n";
        exit(1);
    }

    public static function halt(int $status): never
    {
        exit($status);
    }
}
