//! The pulled cable: a server and its clients in network namespaces of their own, with a switch
//! between them that can silently drop every packet in either direction. Shows that a client knows
//! that its lock is lost before the server gives it to another session, whatever is dropped and
//! when. And two servers of a cluster, of which one is cut off: holders keep their locks.
//!
//! Where the kernel refuses namespaces or the switch, the tests are skipped, and say so on stderr.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "it serves the black-box tests, which need more of it")]
mod support;

mod closings;
mod clusters;
mod commands;
#[path = "../cluster/etcd.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod etcd;
mod machines;
mod network;
mod outages;
mod pauses;
mod pulled;
mod site;
