//! The binary's other commands: `lockd run` and those that inspect a server, as the real
//! programs, against a real server.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod chain;
mod codes;
mod crashes;
mod crontab;
mod documented;
mod groups;
mod kicking;
mod leaving;
mod limited;
mod lingering;
mod listing;
mod losing;
mod nested;
mod place;
mod relay;
mod resuming;
mod resuming_ends;
mod returning;
mod riding;
mod shell;
mod signals;
#[path = "../client/standby.rs"]
mod standby;
mod stats;
mod stopping;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
mod taking_turns;
mod terminal;
mod tool;
