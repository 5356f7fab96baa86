//! The log of a process whose standard error is not read. Each test runs this program again, as
//! that process.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::*;

/// The variable that tells this program that it is the child, and which test it is to run.
const TASK: &str = "LOCKD_TEST_LOGGING";
const DEADLINE: Duration = Duration::from_secs(60);

/// A child that is killed and waited for when this is dropped, also if the test fails.
struct ChildProcess(Child);

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a test of this file in a child process whose standard error is a full pipe. Returns how the
/// child ended.
fn run_unread(test: &str) -> ExitStatus {
    let (reader, writer) = std::io::pipe().unwrap();
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut filler = OpenOptions::new().write(true).custom_flags(nonblocking).open(path).unwrap();
    let full = std::iter::repeat_with(|| filler.write_all(b"\n")).find_map(Result::err);
    assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("cli::logging::tests::{test}"), "--exact", "--nocapture"]).env(TASK, test);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let mut child = ChildProcess(command.spawn().unwrap());
    let deadline = Instant::now() + DEADLINE;
    let ended = loop {
        if let Some(ended) = child.0.try_wait().unwrap() {
            break ended;
        }
        assert!(Instant::now() < deadline, "{test} hangs");
        std::thread::sleep(Duration::from_millis(2));
    };
    drop(reader);
    ended
}

fn is_task(test: &str) -> bool {
    std::env::var_os(TASK).is_some_and(|task| task == test)
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("and again");
    }
}

#[test]
fn a_panic_during_a_panic_aborts() {
    const THIS: &str = "a_panic_during_a_panic_aborts";
    if is_task(THIS) {
        start(LevelFilter::Info, LogStyle::Plain).unwrap();
        let _again = PanicsWhenDropped;
        panic!("once");
    }
    assert_eq!(run_unread(THIS).signal(), Some(rustix::process::Signal::ABORT.as_raw()));
}

#[test]
fn a_thread_that_panics_ends_and_so_does_the_process() {
    const THIS: &str = "a_thread_that_panics_ends_and_so_does_the_process";
    if is_task(THIS) {
        start(LevelFilter::Trace, LogStyle::Plain).unwrap();
        let panics = std::thread::spawn(|| panic!("once"));
        assert!(panics.join().is_err());
        for number in 0..2 * LINES_MAX {
            log::debug!("{number}");
        }
        finish();
        std::process::exit(7);
    }
    assert_eq!(run_unread(THIS).code(), Some(7));
}

#[test]
fn a_write_to_stderr_without_the_log_does_not_block() {
    const THIS: &str = "a_write_to_stderr_without_the_log_does_not_block";
    if is_task(THIS) {
        start(LevelFilter::Info, LogStyle::Plain).unwrap();
        // The runtime writes like this before it aborts.
        let written = rustix::io::write(rustix::stdio::stderr(), b"out of memory\n");
        std::process::exit(if written == Err(rustix::io::Errno::AGAIN) { 7 } else { 1 });
    }
    assert_eq!(run_unread(THIS).code(), Some(7));
}

#[test]
fn the_requests_of_the_http_client_are_not_logged() {
    for (level, target, expected) in [
        (Level::Debug, "ureq::run", true),
        (Level::Info, "ureq_proto::client", true),
        (Level::Warn, "ureq::run", false),
        (Level::Trace, "lockd::server", false),
    ] {
        let metadata = Metadata::builder().level(level).target(target).build();
        assert_eq!(is_of_http_client(&metadata), expected, "{metadata:?}");
    }
}
