<?php

/**
 * Using liblockd directly from PHP: every step that a wrapper class would take.
 *
 *     php ffi.php [LIBRARY [SERVER]]
 *
 * LIBRARY is the library's name or path, by default liblockd.so.1. SERVER is the address of a
 * server, such as tcp://127.0.0.1:20934; without it the locks are in this process. Everything after
 * the opening of the sessions is the same for both.
 *
 * In a web server FFI::cdef is not available: see FFI::load, opcache.preload and ffi.preload, for
 * which the same header works.
 */

declare(strict_types=1);

$lockd = FFI::cdef(file_get_contents(__DIR__ . '/../../bindings/php/lockd.h'), $argv[1] ?? 'liblockd.so.1');
$server = $argv[2] ?? null;

/** Ends the script if a condition does not hold. */
function must(bool $holds, string $what): void
{
    if (!$holds) {
        fwrite(STDERR, "not as expected: $what\n");
        exit(1);
    }
}

// The library may have another version than the header.
must($lockd->lock_abi_version() === 1, 'the version of the ABI');

// The constants of an enum are members of the FFI object, as plain integers.
$statuses = ['OK', 'PENDING', 'TIMEOUT', 'NOT_HELD', 'ALREADY_HELD', 'DEADLOCK', 'CANCELLED', 'INTERRUPTED',
    'INVALID', 'REFUSED', 'LOST', 'FORKED', 'IO', 'INTERNAL'];
foreach ($statuses as $number => $status) {
    must($lockd->{"LOCK_$status"} === $number, "LOCK_$status");
}
must($lockd->LOCK_EXCLUSIVE === 0, 'LOCK_EXCLUSIVE');
must($lockd->LOCK_SHARED === 1, 'LOCK_SHARED');

// Sessions ----------------------------------------------------------------------------------------

/** A session is one owner of locks. PHP does not free it: lock_close does. */
$open = function (string $owner) use ($lockd, $server): FFI\CData {
    $session = $server === null
        ? $lockd->lock_open(null, $owner)
        : $lockd->lock_connect($server, $owner, 10_000);
    // PHP gives C's NULL as null.
    if ($session === null) {
        fwrite(STDERR, "no session: {$lockd->lock_last_error()}\n");
        exit(1);
    }
    return $session;
};
$ours = $open('ours');
$theirs = $open('theirs');

// Use names of our own: with a common name, a server may remember that another program vanished
// with the lock.
$report = 'example/report/' . bin2hex(random_bytes(8));
$shared = ["$report/a", "$report/b"];

// Acquiring ---------------------------------------------------------------------------------------

// A number that C writes to: create it with new(), pass its address, read it as ->cdata.
$token = $lockd->new('uint64_t');

$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 5_000, FFI::addr($token));
echo 'we acquire: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_OK, 'the first acquire');
// A token is below 2^53, so it is an integer in PHP, in JSON and in JavaScript.
$first = $token->cdata;
must(is_int($first) && $first > 0 && $first < 2 ** 53, 'the fencing token');

// A time limit of 0 means not to wait. NULL means that the token is not needed.
$status = $lockd->lock_acquire($theirs, $report, $lockd->LOCK_EXCLUSIVE, 0, null);
echo 'they try: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_TIMEOUT, 'a busy lock');

// One owner cannot acquire a lock twice.
$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 0, null);
echo 'we try again: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_ALREADY_HELD, 'a lock held already');

// Waiting -----------------------------------------------------------------------------------------

// lock_enqueue joins the queue, and lock_wait waits there in slices. Between the slices PHP can
// handle signals, its time limit or other work. After LOCK_TIMEOUT and LOCK_INTERRUPTED the place
// in the queue is kept.
pcntl_async_signals(true);
$stop = false;
pcntl_signal(SIGTERM, function () use (&$stop): void {
    $stop = true;
});

$status = $lockd->lock_enqueue($theirs, $report, $lockd->LOCK_EXCLUSIVE);
echo 'they take a place: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_PENDING, 'a place in the queue');

$slices = 0;
while (in_array($status, [$lockd->LOCK_PENDING, $lockd->LOCK_TIMEOUT, $lockd->LOCK_INTERRUPTED], true)) {
    if ($stop) {
        // Leaves the queue, or releases the lock if it was granted meanwhile.
        $lockd->lock_release($theirs, $report);
        break;
    }
    $status = $lockd->lock_wait($theirs, $report, 50, FFI::addr($token));

    // Inspecting a lock: a struct is created and passed like a number; its members are properties.
    if (++$slices === 1) {
        echo 'they wait: ', $lockd->lock_strerror($status), "\n";
        $info = $lockd->new('lock_info');
        must(FFI::sizeof($info) === 32, 'the size of lock_info');
        must($lockd->lock_inspect($ours, $report, FFI::addr($info)) === $lockd->LOCK_OK, 'inspecting it');
        must($info->token === $first, 'token');
        must($info->holders === 1, 'holders');
        must($info->waiters === 1, 'waiters');
        must($info->mode === $lockd->LOCK_EXCLUSIVE, 'mode');
        must($info->held === true, 'held');
        must($info->waiting === false, 'waiting');
        must($info->orphaned === false, 'orphaned');
        echo "we see: held by $info->holders, which is us; $info->waiters waiting\n";

        must($lockd->lock_inspect($theirs, $report, FFI::addr($info)) === $lockd->LOCK_OK, 'their inspecting it');
        must([$info->token, $info->held, $info->waiting] === [0, false, true], 'what they see');

        // The lock is granted to the next waiter at once.
        $status_of_release = $lockd->lock_release($ours, $report);
        echo 'we release: ', $lockd->lock_strerror($status_of_release), "\n";
        must($status_of_release === $lockd->LOCK_OK, 'the release');
    }
}
echo 'they wait on: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_OK, 'their turn');
must($token->cdata > $first, 'a later grant has a higher token');

// Vanishing ---------------------------------------------------------------------------------------

// After lock_abandon the locks of a session count as orphaned, as those of a script that crashes
// do. With lock_close alone they would count as released.
$lockd->lock_abandon($theirs);
$lockd->lock_close($theirs);
$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 5_000, null);
must($status === $lockd->LOCK_OK, 'acquiring the lock of a session that vanished');
must($lockd->lock_inspect($ours, $report, FFI::addr($info)) === $lockd->LOCK_OK, 'inspecting it once more');
echo 'they are gone', $info->orphaned ? ', and have not released it' : '', "\n";
$lockd->lock_release($ours, $report);

// Several at once, shared -------------------------------------------------------------------------

// An array of strings is an array of pointers. The memory they point to must exist until the call
// returns.
$strings = array_map(function (string $name) use ($lockd): FFI\CData {
    $string = $lockd->new('char[' . strlen($name) + 1 . ']');
    FFI::memcpy($string, $name . "\0", strlen($name) + 1);
    return $string;
}, $shared);
$names = $lockd->new('const char *[2]');
$modes = $lockd->new('uint32_t[2]');
foreach ($strings as $at => $string) {
    $names[$at] = $lockd->cast('const char *', $string);
    $modes[$at] = $lockd->LOCK_SHARED;
}
$status = $lockd->lock_acquire_all($ours, $names, $modes, 2, 5_000, FFI::addr($token));
echo 'we share two: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_OK, 'two at once');
must($lockd->lock_inspect($ours, $shared[1], FFI::addr($info)) === $lockd->LOCK_OK, 'inspecting the second');
must($info->mode === $lockd->LOCK_SHARED, 'mode, when shared');
must($lockd->lock_release_all($ours, $names, 2) === $lockd->LOCK_OK, 'the release of both');

// Errors ------------------------------------------------------------------------------------------

// The status says what kind of failure it was; lock_last_error describes it exactly.
$status = $lockd->lock_acquire($ours, $report, 7, 0, null);
echo 'an unknown mode: ', $lockd->lock_last_error(), "\n";
must($status === $lockd->LOCK_INVALID, 'an unknown mode');

$status = $lockd->lock_release($ours, $report);
echo 'what we do not hold: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_NOT_HELD, 'a lock not held');

must($lockd->lock_connect('nowhere', null, 1_000) === null, 'no session without an address');
echo 'no address: ', $lockd->lock_last_error(), "\n";

must($lockd->lock_check($ours) === $lockd->LOCK_OK, 'a session that is alive');
$lockd->lock_close($ours);
