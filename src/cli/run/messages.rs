//! Messages of `lockd run` on standard error, written without ever waiting for the reader. Knows
//! nothing about locks and commands.
//!
//! The reader may have stopped: a pager, a log collector that hangs, Ctrl-S in a terminal. The
//! command and `lockd run` must end all the same. Non-blocking mode is not possible, since it
//! belongs to the open file, which the command and the shell share. poll(2) before the write is not
//! enough: a terminal or another writer can fill the buffer between the two. So a thread of its own
//! writes, and the process can end without waiting for it.

use std::io::{self, Write};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::cli::text::harmless;

/// How long the end of the program waits until its last messages are written.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// The size of the thread's stack in bytes: it only writes.
const STACK: usize = 64 << 10;

const NAME: &str = "lockd-say";

/// Writes messages in the order in which they are given.
pub(super) struct MessageWriter {
    lines: Sender<String>,
    /// Disconnected when the thread has ended.
    written: Receiver<()>,
}

impl MessageWriter {
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start() -> io::Result<Self> {
        let (lines, to_write) = crossbeam_channel::unbounded::<String>();
        let (done, written) = crossbeam_channel::bounded(0);
        let work = move || {
            let _done = done;
            for line in to_write {
                // If standard error cannot be written to, the exit status must be enough.
                let _ = io::stderr().write_all(line.as_bytes());
            }
        };
        // All signals are blocked while the thread is started, so that it inherits the mask.
        // Otherwise a signal that is blocked in all other threads would be delivered to this one,
        // and kill the process. With SIGTTOU blocked, a background process may write to a terminal
        // that would stop it for that.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = Builder::new().name(NAME.to_owned()).stack_size(STACK).spawn(work);
        before.thread_set_mask()?;
        spawned?;
        Ok(Self { lines, written })
    }

    /// Writes the message now, or when the reader is ready.
    pub(super) fn write(&self, message: &str) {
        // It fails only if the thread has panicked.
        let _ = self.lines.send(format!("lockd: {}\n", harmless(message)));
    }

    /// Waits until all messages are written, for a second at most.
    pub(super) fn finish(self) {
        drop(self.lines);
        // An error means that the thread has ended, or that the time is over.
        let _ = self.written.recv_timeout(FINISH_LIMIT);
    }
}
