//! The message with which the program ends. It never waits for a reader for long: the process must
//! end, and a service manager must learn that a start has failed, even if standard error is a full
//! pipe that is never read.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::Builder;
use std::time::Duration;

use super::text::harmless;

/// The exit status for wrong arguments or a wrong configuration.
pub(super) const EXIT_USAGE: u8 = 2;

/// How long the end of the program waits until its last message is written.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// Runs `write`, which may block, and returns when it is done, or after a second.
pub(super) fn write_within_limit(write: impl FnOnce() + Send + 'static) {
    let (done, written) = crossbeam_channel::bounded::<()>(0);
    let work = move || {
        write();
        drop(done);
    };
    // The thread ends with the process. If it cannot be started, there is no message, but still the
    // exit status.
    if Builder::new().name("lockd-say".to_owned()).spawn(work).is_ok() {
        // An error means that `write` is done, or that the time is over.
        let _ = written.recv_timeout(WRITE_LIMIT);
    }
}

/// Writes `message` to standard error, and returns `code` as the exit status.
pub(super) fn exit_with_message(message: &str, code: u8) -> ExitCode {
    let line = format!("lockd: {}\n", harmless(message));
    write_within_limit(move || {
        // If standard error cannot be written to, the exit status must be enough.
        let _ = io::stderr().write_all(line.as_bytes());
    });
    ExitCode::from(code)
}
