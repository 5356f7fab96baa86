//! PHP with its FFI: the PHP example, in this process and on a server, which prints the same in both
//! cases; and the calls that the example does not need.

use std::process::Command;
use std::time::Duration;

use lockd::Session;
use lockd::broker::Mode;

use crate::headers::php_header;
use crate::program::{Served, library_directory, root};
use crate::running::Running;

const EXPECTED: [&str; 13] = [
    "we acquire: done",
    "they try: not granted within the time limit",
    "we try again: the session already holds the lock",
    "they take a place: the session has a place in the queue",
    "they wait: not granted within the time limit",
    "we see: held by 1, which is us; 1 waiting",
    "we release: done",
    "they wait on: done",
    "they are gone, and have not released it",
    "we share two: done",
    "an unknown mode: 7 is no mode; use lock_at_most(7)",
    "what we do not hold: the session has no such lock, or no such place in a queue",
    "no address: not the address of a server: \"nowhere\": it has no scheme; did you mean tcp://nowhere?",
];

fn php() -> Command {
    let mut command = Command::new("php");
    // On Debian, FFI is a separate extension of PHP, and without the system's configuration no
    // extension is loaded.
    command.args(["-n", "-d", "extension=ffi", "-d", "display_errors=stderr", "-d", "error_reporting=-1"]);
    command
}

fn run(server: Option<&str>) {
    let mut command = php();
    command.arg(root().join("examples/php/ffi.php")).arg(library_directory().join("liblockd.so"));
    let ended = Running::start(command.args(server)).end();
    assert_eq!((ended.code, ended.complaints), (Some(0), vec![]), "{:?}", ended.lines);
    assert_eq!(ended.lines, EXPECTED);
}

#[test]
fn php_locks_in_its_own_process() {
    run(None);
}

#[test]
fn php_locks_on_a_server() {
    let server = Served::start();
    run(Some(&server.tcp()));
    run(Some(&server.unix()));
    server.await_no_connections();
}

#[test]
fn php_locks_on_a_server_that_remembers_a_holder_that_vanished() {
    let server = Served::start();
    let vanished = Session::connect(&server.tcp(), None, Duration::from_secs(20)).unwrap();
    vanished.acquire(b"report", Mode::Exclusive, None).unwrap();
    vanished.abandon();
    drop(vanished);
    run(Some(&server.tcp()));
}

/// Takes the header and the library.
const LIMITED: &str = r#"
    $lockd = FFI::cdef(file_get_contents($argv[1]), $argv[2]);
    [$a, $b, $c] = array_map(fn ($owner) => $lockd->lock_open(null, $owner), ['a', 'b', 'c']);
    foreach ([$a, $b, $c] as $session) {
        echo $lockd->lock_strerror($lockd->lock_acquire($session, 'gpu', $lockd->lock_at_most(2), 0, null)), "\n";
    }
    $slots = $lockd->new('lock_slots');
    $lockd->lock_inspect_slots($c, 'gpu', FFI::addr($slots));
    echo "held by $slots->holders of $slots->limit, $slots->free free\n";
    $mode = $lockd->new('uint32_t');
    $lockd->lock_held_mode($a, 'gpu', FFI::addr($mode));
    echo $mode->cdata === $lockd->lock_at_most(2) ? 'as asked' : 'otherwise', "\n";
    echo $lockd->lock_strerror($lockd->lock_acquire($c, 'cpu', $lockd->lock_at_most(0), 0, null)), "\n";
    foreach ([$a, $b, $c] as $session) {
        $lockd->lock_close($session);
    }
"#;

#[test]
fn php_limits_the_holders_of_a_lock() {
    let mut command = php();
    command.args(["-r", LIMITED, "--"]).arg(php_header()).arg(library_directory().join("liblockd.so"));
    let ended = Running::start(&mut command).end();
    assert_eq!((ended.code, ended.complaints), (Some(0), vec![]), "{:?}", ended.lines);
    let timeout = "not granted within the time limit";
    let expected = ["done", "done", timeout, "held by 2 of 2, 0 free", "as asked", "invalid argument"];
    assert_eq!(ended.lines, expected);
}
