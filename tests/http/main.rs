//! The pages of `--http` as browsers, Prometheus and other sites see them: the real binary, over
//! real sockets, and a browser if one is installed.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod browser;
mod chromium;
mod client;
mod figures;
mod rough;
mod routes;
mod strangers;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
