<?php

/**
 * Locks from PHP, by hand: every step that a class around them would take.
 *
 *     php ffi.php [LIBRARY [SERVER]]
 *
 * LIBRARY is the library's name or path, liblockd.so.1 if it is not given. SERVER is the address of a server,
 * such as tcp://127.0.0.1:20934; without it the locks are those of this process. What comes after the
 * opening of the sessions is the same for both.
 *
 * In a web server FFI::cdef is not to be had: see FFI::load, opcache.preload and ffi.preload, for which the
 * header is just as good.
 */

declare(strict_types=1);

$lockd = FFI::cdef(file_get_contents(__DIR__ . '/../../bindings/php/lockd.h'), $argv[1] ?? 'liblockd.so.1');
$server = $argv[2] ?? null;

/** Ends the script unless something is as it must be. */
function must(bool $holds, string $what): void
{
    if (!$holds) {
        fwrite(STDERR, "not as it must be: $what\n");
        exit(1);
    }
}

// The library may be another one than the header was made for.
must($lockd->lock_abi_version() === 1, 'the version of the ABI');

// An enum's constants are members of the FFI object, and plain integers.
$statuses = ['OK', 'PENDING', 'TIMEOUT', 'NOT_HELD', 'ALREADY_HELD', 'DEADLOCK', 'CANCELLED', 'INTERRUPTED',
    'INVALID', 'REFUSED', 'LOST', 'FORKED', 'IO', 'INTERNAL'];
foreach ($statuses as $number => $status) {
    must($lockd->{"LOCK_$status"} === $number, "LOCK_$status");
}
must($lockd->LOCK_EXCLUSIVE === 0, 'LOCK_EXCLUSIVE');
must($lockd->LOCK_SHARED === 1, 'LOCK_SHARED');

// Sessions -------------------------------------------------------------------------------------------------

/** A session is one owner of locks. Not a CData to be freed by PHP: lock_close frees it. */
$open = function (string $owner) use ($lockd, $server): FFI\CData {
    $session = $server === null
        ? $lockd->lock_open(null, $owner)
        : $lockd->lock_connect($server, $owner, 10_000);
    // NULL comes as null.
    if ($session === null) {
        fwrite(STDERR, "no session: {$lockd->lock_last_error()}\n");
        exit(1);
    }
    return $session;
};
$ours = $open('ours');
$theirs = $open('theirs');

// Names that nobody else uses: a server may remember that another program has vanished with a lock of a common name.
$report = 'example/report/' . bin2hex(random_bytes(8));
$shared = ["$report/a", "$report/b"];

// Acquiring ------------------------------------------------------------------------------------------------

// A number that C writes to: made by new(), passed by its address, read as ->cdata.
$token = $lockd->new('uint64_t');

$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 5_000, FFI::addr($token));
echo 'we acquire: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_OK, 'the first acquire');
// Below 2^53, so an integer here, in JSON and in JavaScript.
$first = $token->cdata;
must(is_int($first) && $first > 0 && $first < 2 ** 53, 'the fencing token');

// 0: do not wait. The token is of no interest: NULL.
$status = $lockd->lock_acquire($theirs, $report, $lockd->LOCK_EXCLUSIVE, 0, null);
echo 'they try: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_TIMEOUT, 'a busy lock');

// One owner does not get a lock twice.
$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 0, null);
echo 'we try again: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_ALREADY_HELD, 'a lock held already');

// Waiting --------------------------------------------------------------------------------------------------

// lock_enqueue takes a place in the queue, and lock_wait waits there in slices: between them PHP can look after
// its signals, its time limit or its other work. LOCK_TIMEOUT and LOCK_INTERRUPTED keep the place.
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
        // Gives the place up, or the lock, if that has come meanwhile.
        $lockd->lock_release($theirs, $report);
        break;
    }
    $status = $lockd->lock_wait($theirs, $report, 50, FFI::addr($token));

    // Looking at a lock: a struct is made and passed like a number, and has its members as properties.
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

        // It goes to the next one in the queue in the same moment.
        $status_of_release = $lockd->lock_release($ours, $report);
        echo 'we release: ', $lockd->lock_strerror($status_of_release), "\n";
        must($status_of_release === $lockd->LOCK_OK, 'the release');
    }
}
echo 'they wait on: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_OK, 'their turn');
must($token->cdata > $first, 'a later grant has a higher token');

// Vanishing ------------------------------------------------------------------------------------------------

// A session that does not end in order leaves word of it, as a script that crashes does. Without lock_abandon the
// lock would count as released.
$lockd->lock_abandon($theirs);
$lockd->lock_close($theirs);
$status = $lockd->lock_acquire($ours, $report, $lockd->LOCK_EXCLUSIVE, 5_000, null);
must($status === $lockd->LOCK_OK, 'the lock of one that is gone');
must($lockd->lock_inspect($ours, $report, FFI::addr($info)) === $lockd->LOCK_OK, 'a last look');
echo 'they are gone', $info->orphaned ? ', and have not released it' : '', "\n";
$lockd->lock_release($ours, $report);

// Several at once, shared ----------------------------------------------------------------------------------

// An array of strings: of pointers to memory that must be there until the call returns.
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

// Errors ---------------------------------------------------------------------------------------------------

// The status says what kind of failure it is, lock_last_error what exactly was the matter.
$status = $lockd->lock_acquire($ours, $report, 7, 0, null);
echo 'an unknown mode: ', $lockd->lock_strerror($status), ': ', $lockd->lock_last_error(), "\n";
must($status === $lockd->LOCK_INVALID, 'an unknown mode');

$status = $lockd->lock_release($ours, $report);
echo 'what we do not hold: ', $lockd->lock_strerror($status), "\n";
must($status === $lockd->LOCK_NOT_HELD, 'a lock not held');

must($lockd->lock_connect('nowhere', null, 1_000) === null, 'no session without an address');
echo 'no address: ', $lockd->lock_last_error(), "\n";

must($lockd->lock_check($ours) === $lockd->LOCK_OK, 'a session that stands');
$lockd->lock_close($ours);
