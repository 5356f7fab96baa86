//! Upgrades in place, with the real binary: the server becomes the program that is now at its path,
//! and its clients notice nothing. Where that is not possible, it goes on as before.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "../transports/authority.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod authority;
mod busy_clients;
#[path = "../transports/clients.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod clients;
mod configuration;
mod ends;
mod executing;
mod keeping;
mod kills;
#[path = "../running/manager.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod manager;
mod recorded;
mod refusing;
mod resuming;
mod scale;
mod service;
mod site;
mod steps;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
mod talking;
