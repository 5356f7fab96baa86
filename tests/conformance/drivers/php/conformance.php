<?php

/**
 * What every driver in PHP needs: reading commands, decoding names, writing outcomes, and the
 * commands that are the same for every client: fork and fork-sleep. The driver has the abilities, and a
 * function that carries out all other commands. ../../README.md describes them.
 */

declare(strict_types=1);

namespace Conformance;

use Throwable;

// Warnings must not get between the outcomes.
ini_set('display_errors', 'stderr');
ini_set('log_errors', '0');
error_reporting(E_ALL);

/** The directory of the PHP package; the environment can name a copy of it. */
function packageDirectory(): string
{
    return getenv('CONFORMANCE_PHP') ?: __DIR__ . '/../../../../bindings/php';
}

/** Decodes a name. */
function nameOf(string $word): string
{
    return $word === '""' ? '' : rawurldecode($word);
}

/** A time in seconds; null for `forever`. */
function secondsOf(string $word): ?float
{
    return $word === 'forever' ? null : (int) $word / 1000;
}

/**
 * Carries out a line and writes its outcome.
 *
 * @param callable(string, list<string>): string $carryOut takes the command and its words, and
 *     returns the outcome
 * @param callable(): mixed $inChild as for {@see forkSleep()}
 */
function answer(string $line, callable $carryOut, callable $inChild): void
{
    $words = explode(' ', $line);
    $command = array_shift($words);
    if ($command === 'fork') {
        $child = pcntl_fork();
        if ($child === 0) {
            answer(implode(' ', $words), $carryOut, $inChild);
            exit(0);
        }
        // The next command finds that the child has ended.
        pcntl_waitpid($child, $status);
        return;
    }
    try {
        $outcome = $command === 'fork-sleep'
            ? forkSleep((int) $words[0], $inChild)
            : $carryOut($command, $words);
    } catch (Throwable $problem) {
        $outcome = 'error ' . $problem::class . ': ' . $problem->getMessage();
    }
    say($outcome);
}

/**
 * Forks a child that inherits the session and uses nothing of it.
 *
 * @param callable(): mixed $inChild what the client's documentation tells such a child to do first
 */
function forkSleep(int $milliseconds, callable $inChild): string
{
    $child = pcntl_fork();
    if ($child === 0) {
        $inChild();
        usleep($milliseconds * 1000);
        exit(0);
    }
    return "ok $child";
}

/** The TEXT of an outcome may have several lines. */
function say(string $outcome): void
{
    fwrite(STDOUT, strtr($outcome, "\r\n", '  ') . "\n");
}

/**
 * Says what the client can do, then carries out commands until the standard input ends.
 *
 * @param array<string, string> $cannot the reason for each ability that the client lacks
 * @param callable(string, list<string>): string $carryOut as for {@see answer()}
 * @param callable(): mixed $inChild as for {@see forkSleep()}
 */
function converse(string $can, array $cannot, callable $carryOut, callable $inChild): void
{
    say('conformance 1');
    say("can $can");
    foreach ($cannot as $ability => $reason) {
        say("cannot $ability $reason");
    }
    say('ready');
    while (($line = fgets(STDIN)) !== false) {
        answer(rtrim($line, "\n"), $carryOut, $inChild);
        // Children of fork-sleep that have ended.
        while (function_exists('pcntl_waitpid') && pcntl_waitpid(-1, $status, WNOHANG) > 0) {
            continue;
        }
    }
}
