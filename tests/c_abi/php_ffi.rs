//! The PHP example, in this process and on a server: it prints the same in both cases.

use std::process::Command;
use std::time::Duration;

use lockd::Session;
use lockd::broker::Mode;

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
    "an unknown mode: invalid argument: 7 is no mode",
    "what we do not hold: the session has no such lock, or no such place in a queue",
    "no address: not the address of a server: \"nowhere\": it has no scheme; did you mean tcp://nowhere?",
];

fn run(server: Option<&str>) {
    let mut command = Command::new("php");
    // On Debian, FFI is a separate extension of PHP, and without the system's configuration no
    // extension is loaded.
    command.args(["-n", "-d", "extension=ffi", "-d", "display_errors=stderr", "-d", "error_reporting=-1"]);
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
