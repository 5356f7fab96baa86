//! What operators need: the service manager's protocols, manual pages and completions. Runs the
//! real binary; the test plays the service manager.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod activation;
mod documents;
mod manager;
mod notify;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
