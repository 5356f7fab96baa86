//! What `lockd run` says on its standard error, without ever waiting for the reader. Knows nothing about locks
//! and commands.
//!
//! The reader may have stopped: a pager, a log collector that hangs, Ctrl-S in a terminal. The command must be
//! ended all the same, and so must `lockd run`. Non-blocking mode would not do: it belongs to the open file,
//! which the command and the shell share. Nor would asking poll(2) first: a terminal or another writer can fill
//! the room between the answer and the write. So a thread of its own writes, which may be left behind.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::cli::text::harmless;

/// How long the end of the program waits for its last words to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The bytes of stack that the thread needs at most: it does nothing but write.
const STACK: usize = 64 << 10;

const NAME: &str = "lockd-say";

/// Says things in the order in which they are given.
pub(super) struct Speaker {
    lines: Sender<String>,
    /// Disconnected once the thread has ended.
    written: Receiver<()>,
}

impl Speaker {
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start() -> io::Result<Self> {
        let (lines, to_write) = channel::<String>();
        let (done, written) = channel();
        let work = move || {
            let _done = done;
            for line in to_write {
                // A failure to write can be told to no one.
                let _ = io::stderr().write_all(line.as_bytes());
            }
        };
        // The thread inherits the mask, so that it never runs without it: a signal that is blocked in all other
        // threads would go to this one, and kill the process. And without SIGTTOU a background process may write
        // to a terminal that would stop it for that.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = Builder::new().name(NAME.to_owned()).stack_size(STACK).spawn(work);
        before.thread_set_mask()?;
        spawned?;
        Ok(Self { lines, written })
    }

    /// Says it, now or when the reader is ready.
    pub(super) fn say(&self, words: &str) {
        // It fails only if the thread has panicked.
        let _ = self.lines.send(format!("lockd: {}\n", harmless(words)));
    }

    /// Waits until all has been written, for a second at most.
    pub(super) fn finish(self) {
        drop(self.lines);
        // An error says that the thread has ended, or that the time is over.
        let _ = self.written.recv_timeout(LAST_WORDS);
    }
}
