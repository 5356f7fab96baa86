//! Histories: clients record every call they make, and a checker decides afterwards whether what
//! they were told fits what a lock broker promises. One program; its modules say what each is
//! about.
//!
//! - `history`: what is recorded. `checker`: the judge. `plan`, `dice`: what clients choose to do.
//! - `sim`: clients of a broker in this process, in simulated time. `controls`, `mutants`,
//!   `restarts`: whether the judge can be believed.
//! - `faults`: clients and servers as processes that are killed and stopped.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod checker;
mod controls;
mod dice;
mod faults;
mod history;
mod mutants;
mod plan;
mod restarts;
mod sim;
