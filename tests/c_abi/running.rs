//! Programs that run while the test sends them signals and reads what they print.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take before a test fails. A test that passes never waits for it to elapse.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A running program. It is killed if the test fails before it ends.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both calls fail only if the program has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a program ended, and what it printed that was not read before.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<String>,
    pub(crate) complaints: Vec<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{what}: {error}: run make test-setup and cargo build --examples first")
        });
        let lines = read(child.stdout.take().unwrap());
        let complaints = read(child.stderr.take().unwrap());
        Self { child, lines, complaints }
    }

    /// The next line that the program prints.
    pub(crate) fn line(&mut self) -> String {
        self.lines.recv_timeout(DEADLINE).unwrap_or_else(|error| {
            let complaints: Vec<String> = self.complaints.try_iter().collect();
            panic!("no line: {error}: {:?} {complaints:?}", self.child.try_wait())
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until the program has ended, and with it everything that it has started and that still
    /// has its output open.
    pub(crate) fn end(mut self) -> Ended {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let code = status.and_then(|status| status.code());
        Ended { code, lines: rest(&self.lines), complaints: rest(&self.complaints) }
    }
}

fn read(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, receiver) = channel();
    std::thread::spawn(move || {
        // If the test has ended in the meantime, the receiver is gone.
        BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    receiver
}

/// The lines until no process has the output open any more.
fn rest(lines: &Receiver<String>) -> Vec<String> {
    let mut rest = Vec::new();
    loop {
        match lines.recv_timeout(DEADLINE) {
            Ok(line) => rest.push(line),
            Err(RecvTimeoutError::Disconnected) => return rest,
            Err(RecvTimeoutError::Timeout) => panic!("a process still has the output open"),
        }
    }
}
