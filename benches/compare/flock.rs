//! flock(2), which the processes of one machine can use instead: it needs no server, and the kernel
//! releases the locks of processes that end.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// The argument that makes this program a worker.
pub(crate) const WORKER: &str = "flock";

const SECONDS: f64 = 1.0;

/// Locks and unlocks the file for `seconds` seconds, and prints how many times.
#[expect(clippy::print_stdout, reason = "the figure for the process that started this one")]
pub(crate) fn work(path: &str, seconds: f64) {
    println!("{}", count(path, seconds));
}

fn count(path: &str, seconds: f64) -> u64 {
    let file = File::open(path).unwrap();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut locked = 0;
    while Instant::now() < end {
        flock(&file, FlockOperation::LockExclusive).unwrap();
        flock(&file, FlockOperation::Unlock).unwrap();
        locked += 1;
    }
    locked
}

/// The nanoseconds that a process needs to lock and unlock a file that no other process locks.
pub(crate) fn uncontended() -> f64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    SECONDS * 1e9 / count(file.path().to_str().unwrap(), SECONDS) as f64
}

/// How many times per second all `processes` together get the same lock.
pub(crate) fn contended(processes: usize) -> f64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(WORKER).arg(file.path()).arg(SECONDS.to_string()).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let workers: Vec<_> = (0..processes).map(|_| start()).collect();
    let counted = workers.into_iter().map(|worker| {
        let output = worker.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<f64>().unwrap()
    });
    counted.sum::<f64>() / SECONDS
}
