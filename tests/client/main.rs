//! Sessions on real servers: what holds when many of them contend, are cancelled, time out and lose their
//! server. Servers run in this process on free ports; one that is to be paused runs in its own.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod agreement;
mod calls;
mod crossing;
#[path = "../blackbox/support/environment.rs"]
mod environment;
mod losing;
mod serving;
mod several;
mod support;
