//! The conformance kit: it shows whether a client of lockd is safe. `README.md` is its contract.
//!
//! `clients` lists the clients, `trials` what is done to them, and `cells` runs each client in each
//! trial. A trial has a `stage`, which gives it `server`s and drivers (`driver`), a client of the
//! runner's own (`witness`), a network under control (`relay`) and servers that lie
//! (`fake_server`).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a trial fails that cannot go on"
)]

mod arguments;
mod building;
mod calls;
mod cells;
mod certificates;
mod clients;
mod driver;
#[path = "drivers/rust.rs"]
mod drivers_rust;
mod fake_server;
mod fake_text_server;
#[path = "../cable/network.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod network;
mod outcome;
mod output;
mod planted;
mod planting;
mod relay;
mod resuming_server;
mod server;
mod stage;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
mod table;
mod transcript;
mod trials;
mod verdict;
mod witness;

use std::process::ExitCode;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => return say(&message, 2),
    };
    if arguments.as_rust_driver {
        drivers_rust::run();
        return ExitCode::SUCCESS;
    }
    if arguments.planted {
        return planted::run(&arguments);
    }
    let (of_clients, of_trials): (Vec<_>, Vec<_>) = (clients::names().collect(), trials::names().collect());
    if let Some(word) = arguments.unknown_word(&[&of_clients[..], &of_trials].concat()) {
        // No failure: `cargo test WORD` passes its word to every test program.
        return say(&format!("no client and no trial has {word:?} in its name; nothing is run"), 0);
    }
    let (clients, absent) = clients::chosen(&arguments, &of_trials);
    let trials = trials::chosen(&arguments, &of_clients);
    if arguments.list {
        table::list(&trials);
        return ExitCode::SUCCESS;
    }
    let outcome = cells::run(&arguments, &clients, &trials);
    table::print(&clients, &trials, &outcome, &absent)
}

#[expect(clippy::print_stderr, reason = "this is a program")]
fn say(message: &str, status: u8) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(status)
}
