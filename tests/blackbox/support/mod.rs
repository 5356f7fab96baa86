//! What the black-box tests share: the real server as a child process, and small clients that
//! speak its protocols over real sockets. Nothing here uses a type of the crate under test.

pub(crate) mod environment;
pub(crate) mod frame_client;
pub(crate) mod line_client;
pub(crate) mod log;
pub(crate) mod resumable;
pub(crate) mod server;
pub(crate) mod socket;

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails. Generous, because a test that passes never waits
/// for it to elapse, and a machine may be busy with other work.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds; otherwise the test fails with `what`.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `what` has ended by itself.
pub(crate) fn end_of(what: &str, child: &mut Child) -> ExitStatus {
    let mut ended = None;
    eventually(&format!("{what} ends"), || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    ended.unwrap()
}
