<?php

/**
 * Locks from PHP by hand: every step that a class around them would make.
 *
 *     php ffi.php [LIBRARY [SERVER]]
 *
 * LIBRARY is the library's name or path; the default is liblockd.so.1. SERVER is the address of a
 * server, such as tcp://127.0.0.1:20934; without it the locks are those of this process. After the
 * sessions are opened, everything is the same for both.
 *
 * In a web server FFI::cdef is not available: see FFI::load, opcache.preload and ffi.preload, which
 * can use the same header.
 */

declare(strict_types=1);

$lockd = FFI::cdef(file_get_contents(__DIR__ . '/../../bindings/php/lockd.h'), $argv[1] ?? 'liblockd.so.1');
$server = $argv[2] ?? null;

/** Ends the script unless the condition holds. */
function must(bool $holds, string $what): void
{
    if (!$holds) {
        fwrite(STDERR, "failed: $what\n");
        exit(1);
    }
}

// The library may have a different version than the header.
must($lockd->lock_abi_version() === 1, 'the version of the ABI');

// An enum's constants are members of the FFI object, and plain integers.
$statuses = ['OK', 'PENDING', 'TIMEOUT', 'NOT_HELD', 'ALREADY_HELD', 'DEADLOCK', 'CANCELLED', 'INTERRUPTED',
    'INVALID', 'REFUSED', 'LOST', 'FORKED', 'IO', 'INTERNAL'];
foreach ($statuses as $number => $status) {
    must($lockd->{"LOCK_$status"} === $number, "LOCK_$status");
}
must($lockd->LOCK_EXCLUSIVE === 0, 'LOCK_EXCLUSIVE');
must($lockd->LOCK_SHARED === 1, 'LOCK_SHARED');

// Sessions ----------------------------------------------------------------------------------------

/** A session is one owner of locks. PHP does not own this CData and must not free it: lock_close
 * frees the session. */
$open = function (string $owner) use ($lockd, $server): FFI\CData {
    $session = $server === null
        ? $lockd->lock_open(null, $owner)
        : $lockd->lock_connect($server, $owner, 10_000);
    // C's NULL is null in PHP.
    if ($session === null) {
        fwrite(STDERR, "no session: {$lockd->lock_last_error()}\n");
        exit(1);
    }
    return $session;
};
$ours = $open('ours');
$theirs = $open('theirs');

// Unique names: a server may remember that another program has vanished while it held a lock of a
// common name.
$report = 'example/report/' . bin2hex(random_bytes(8));
$shared = ["$report/a", "$report/b"];

// Acquiring ---------------------------------------------------------------------------------------

// A number that C writes to: created by new(), passed by its address, read as ->cdata.
$token = $lockd->new('uint64_t');

$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 5_000, FFI::addr($token));
echo 'we acquire: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_OK, 'the first acquire');
// Tokens are below 2^53, so they are exact integers here, in JSON and in JavaScript.
$first = $token->cdata;
must(is_int($first) && $first > 0 && $first < 2 ** 53, 'the fencing token');

// 0: do not wait. null: the token is not needed.
$status = $lockd->lock_acquire($theirs, $report, $lockd->LOCK_EXCLUSIVE, 0, null);
echo 'they try: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_TIMEOUT, 'a busy lock');

// A session cannot acquire a lock twice.
$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 0, null);
echo 'we try again: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_ALREADY_HELD, 'a lock held already');

// Waiting -----------------------------------------------------------------------------------------

// lock_enqueue takes a place in the queue, and lock_wait waits there in slices: between them PHP
// can handle signals, its time limit or other work. LOCK_TIMEOUT and LOCK_INTERRUPTED keep the
// place.
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
        // Gives up the place, or the lock if it was granted in the meantime.
        $lockd->lock_release($theirs, $report);
        break;
    }
    $status = $lockd->lock_wait($theirs, $report, 50, FFI::addr($token));

    // Inspecting a lock: a struct is created and passed like a number, and its members are
    // properties.
    if (++$slices === 1) {
        echo 'they wait: ', $lockd->lock_strerror($status), "\n";
        $info = $lockd->new('lock_info');
        must(FFI::sizeof($info) === 32, 'the size of lock_info');
        must($lockd->lock_inspect($ours, $report, FFI::addr($info)) === $lockd->LOCK_OK, 'a look');
        must($info->token === $first, 'token');
        must($info->holders === 1, 'holders');
        must($info->waiters === 1, 'waiters');
        must($info->mode === $lockd->LOCK_EXCLUSIVE, 'mode');
        must($info->held === true, 'held');
        must($info->waiting === false, 'waiting');
        must($info->orphaned === false, 'orphaned');
        echo "we see: held by $info->holders, which is us; $info->waiters waiting\n";

        must($lockd->lock_inspect($theirs, $report, FFI::addr($info)) === $lockd->LOCK_OK, 'their look');
        must([$info->token, $info->held, $info->waiting] === [0, false, true], 'what they see');

        // The next one in the queue is granted the lock at the same moment.
        $status_of_release = $lockd->lock_release($ours, $report);
        echo 'we release: ', $lockd->lock_strerror($status_of_release), "\n";
        must($status_of_release === $lockd->LOCK_OK, 'the release');
    }
}
echo 'they wait on: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_OK, 'their turn');
must($token->cdata > $first, 'a later grant has a higher token');

// Vanishing ---------------------------------------------------------------------------------------

// A session that does not end in an orderly way leaves its lock orphaned, as a script that crashes
// does. Without lock_abandon the lock would count as released.
$lockd->lock_abandon($theirs);
$lockd->lock_close($theirs);
$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 5_000, null);
must($status === $lockd->LOCK_OK, 'the lock of one that is gone');
must($lockd->lock_inspect($ours, $report, FFI::addr($info)) === $lockd->LOCK_OK, 'a last look');
echo 'they are gone', $info->orphaned ? ', and have not released it' : '', "\n";
$lockd->lock_release($ours, $report);

// Several at once, shared -------------------------------------------------------------------------

// An array of strings is an array of pointers, to memory that must exist until the call returns.
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
must($lockd->lock_inspect($ours, $shared[1], FFI::addr($info)) === $lockd->LOCK_OK, 'a look at the second');
must($info->mode === $lockd->LOCK_SHARED, 'mode, when shared');
must($lockd->lock_release_all($ours, $names, 2) === $lockd->LOCK_OK, 'the release of both');

// Errors ------------------------------------------------------------------------------------------

// The status gives the kind of a failure, lock_last_error the details.
$status = $lockd->lock_acquire($ours, $report, 7, 0, null);
echo 'an unknown mode: ', $lockd->lock_strerror($status), ': ', $lockd->lock_last_error(), "\n";
must($status === $lockd->LOCK_INVALID, 'an unknown mode');

$status = $lockd->lock_release($ours, $report);
echo 'what we do not hold: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_NOT_HELD, 'a lock not held');

must($lockd->lock_connect('nowhere', null, 1_000) === null, 'no session without an address');
echo 'no address: ', $lockd->lock_last_error(), "\n";

must($lockd->lock_check($ours) === $lockd->LOCK_OK, 'a session that is alive');
$lockd->lock_close($ours);
