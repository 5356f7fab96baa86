//! What it takes to run the server for years: the service manager's protocols, manual pages and completions.
//! Against the real binary; the service manager is the test.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod activation;
mod documents;
mod manager;
mod notify;

use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds; `what` says what was hoped for when it never does.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
