<?php

/**
 * Loads every class of the package. Prints how many there are, or what PHP or the package complains
 * of, with status 1. A class whose framework is not installed is only compiled.
 */

declare(strict_types=1);

error_reporting(-1);
$package = dirname(__DIR__, 2) . '/';
$complaints = [];
set_error_handler(static function (int $type, string $message, string $file) use ($package, &$complaints): bool {
    if (str_starts_with($file, $package)) {
        $complaints[] = "$file: $message";
    }
    return true;
});

require dirname(__DIR__) . '/bootstrap.php';

$loaded = 0;
$compiled = [];
foreach (new RecursiveIteratorIterator(new RecursiveDirectoryIterator("{$package}src")) as $file) {
    // Files with small letters are scripts.
    if (preg_match('~/src/((?:\w+/)*[A-Z]\w*)\.php$~', (string) $file, $path) !== 1) {
        continue;
    }
    $class = 'Lockd\\' . strtr($path[1], '/', '\\');
    try {
        $exists = class_exists($class) || interface_exists($class) || trait_exists($class);
        $exists ? $loaded++ : $complaints[] = "$file: does not declare $class";
    } catch (Error $e) {
        $foreign = preg_match('/^(?:Class|Interface|Trait) "(?!Lockd\\\\)[^"]+" not found$/', $e->getMessage()) === 1;
        $foreign ? $compiled[] = $class : $complaints[] = "$file: {$e->getMessage()}";
    }
}
require_once "{$package}preload.php";
require_once "{$package}compat/lockc.php";
require_once "{$package}compat/pkLockClient.php";

echo implode("\n", $complaints ?: ["$loaded classes"]), $complaints ? "\n" : '';
echo $compiled && !$complaints ? ', only compiled: ' . implode(', ', $compiled) : '', "\n";
exit($complaints ? 1 : 0);
