//! Sessions on real servers: many of them compete, are cancelled, time out and lose their server.
//! Servers run in this process on free ports; a server that is paused runs in a process of its own.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod agreement;
mod calls;
mod crossing;
#[path = "../blackbox/support/environment.rs"]
mod environment;
mod groups;
mod losing;
mod patient;
mod resuming;
mod serving;
mod several;
mod standby;
mod stopped;
mod support;
