//! The broker's shell in every order in which threads can meet there, or in very many orders: built
//! with a model checker instead of the operating system's primitives, see `os/sync.rs`. One thread
//! sets each scenario up, without any choice of order; then two or three threads run at once.
//!
//! `scenario.rs` has the set-up, and asserts what must always hold: never more holders of a lock than
//! one of them allows; every wait ends exactly once, and its outcome is final.

mod converting;
mod ending;
mod granting;
mod limited;
mod local;
mod many;
mod moving;
mod opening;
mod reclaiming;
mod scenario;
mod sharing;
