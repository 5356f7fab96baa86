//! What the program says on its standard error before it ends, without waiting for ever for its reader: a service
//! manager must learn that a start has failed, although the pipe is full and nobody reads it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;

use super::text::harmless;

/// The exit status for arguments or a configuration that make no sense.
pub(super) const MISTAKE: u8 = 2;

/// How long the end of the program waits for its last words to be written.
const LIMIT: Duration = Duration::from_secs(1);

/// Runs `write`, which may wait for a reader, and returns after a second at the latest.
pub(super) fn without_waiting_long(write: impl FnOnce() + Send + 'static) {
    let (done, written) = channel::<()>();
    let work = move || {
        write();
        drop(done);
    };
    // The thread ends with the process. Without one, nothing is said: the exit status is there all the same.
    if Builder::new().name("lockd-say".to_owned()).spawn(work).is_ok() {
        // An error says that the writer is done, or that the time is over.
        let _ = written.recv_timeout(LIMIT);
    }
}

/// Says why the program ends, and gives the exit status for that.
pub(super) fn complain(words: &str, code: u8) -> ExitCode {
    let line = format!("lockd: {}\n", harmless(words));
    without_waiting_long(move || {
        // A failure to write can be told to no one.
        let _ = io::stderr().write_all(line.as_bytes());
    });
    ExitCode::from(code)
}
