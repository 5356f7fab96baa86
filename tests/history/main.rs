//! Histories: clients record every call they make, and afterwards a checker decides whether the
//! replies fit what a lock broker promises. This is one test program; each module describes its
//! part.
//!
//! - `history`: what is recorded. `checker`: decides. `plan`, `random`: choose what clients do.
//! - `sim`: clients of a broker in this process, in simulated time. `by_hand`, `controls`, `mutants`,
//!   `restarts`, `resumptions`, `upgrades`: test the checker itself.
//! - `faults`: clients and servers as processes that are killed and stopped.
//! - `etcd`, with `support`: real servers of etcd, for clusters.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod by_hand;
mod checker;
mod controls;
#[path = "../cluster/etcd.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod etcd;
mod faults;
mod history;
mod mutants;
mod plan;
#[path = "../conformance/planting.rs"]
mod planting;
mod random;
mod restarts;
mod resumptions;
mod sim;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
mod upgrades;
