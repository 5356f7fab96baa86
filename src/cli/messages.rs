//! Messages on standard error, written without waiting for the reader for long: the process must
//! end, even if standard error is a full pipe that is never read, a pager or log collector that
//! hangs, or a terminal stopped by Ctrl-S.
//!
//! Non-blocking mode is not possible, since it belongs to the open file, which other processes
//! share. poll(2) before the write is not enough: a terminal or another writer can fill the buffer
//! between the two. So a thread of its own writes, and the process can end without waiting for it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::Sender;
use nix::sys::signal::{SigSet, SigmaskHow};

use super::text::harmless;

/// The exit status for wrong arguments or a wrong configuration.
pub(super) const EXIT_USAGE: u8 = 2;

/// How long the end of the program waits until its last messages are written.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// Writes messages in the order in which they are given. Clones are the same writer, for other
/// threads.
#[derive(Clone)]
pub(super) struct MessageWriter {
    writes: Sender<Box<dyn FnOnce() + Send>>,
}

impl MessageWriter {
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start() -> io::Result<Self> {
        let (writes, to_do) = crossbeam_channel::unbounded::<Box<dyn FnOnce() + Send>>();
        let work = move || to_do.into_iter().for_each(|write| write());
        // All signals are blocked while the thread is started, so that it inherits the mask.
        // Otherwise a signal that is blocked in all other threads would be delivered to this one,
        // and kill the process. With SIGTTOU blocked, a background process may write to a terminal
        // that would stop it for that.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = Builder::new().name("lockd-say".to_owned()).spawn(work);
        before.thread_set_mask()?;
        spawned?;
        Ok(Self { writes })
    }

    /// Writes the message now, or when the reader is ready.
    pub(super) fn write(&self, message: &str) {
        let line = format!("lockd: {}\n", harmless(message));
        // If standard error cannot be written to, the exit status must be enough.
        self.run(move || _ = io::stderr().write_all(line.as_bytes()));
    }

    fn run(&self, write: impl FnOnce() + Send + 'static) {
        // It fails only if the thread has panicked.
        let _ = self.writes.send(Box::new(write));
    }

    /// Waits until all messages that were given so far are written, for a second at most.
    pub(super) fn finish(self) {
        let (written, done) = crossbeam_channel::bounded::<()>(0);
        self.run(move || drop(written));
        // An error means that they are written, or that the time is over.
        let _ = done.recv_timeout(FINISH_LIMIT);
    }
}

/// Runs `write`, which may block, and returns when it is done, or after a second. If no thread can
/// be started, nothing is written, and the exit status must be enough.
pub(super) fn write_within_limit(write: impl FnOnce() + Send + 'static) {
    if let Ok(messages) = MessageWriter::start() {
        messages.run(write);
        messages.finish();
    }
}

/// Writes `message` to standard error, and returns `code` as the exit status.
pub(super) fn exit_with_message(message: &str, code: u8) -> ExitCode {
    if let Ok(messages) = MessageWriter::start() {
        messages.write(message);
        messages.finish();
    }
    ExitCode::from(code)
}
