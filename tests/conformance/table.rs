//! What the runner prints: each cell that failed, the table, and the reasons in it.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::cells::{Cell, Cells};
use crate::clients::Client;
use crate::trials::Trial;

/// Prints all; fails if a cell has failed.
#[expect(clippy::print_stdout, reason = "this is a program")]
pub(crate) fn print(
    clients: &[Client],
    trials: &[&Trial],
    cells: &Cells,
    absent: &[(&str, String)],
) -> ExitCode {
    let mut failed = 0;
    for (&(client, trial), (cell, _)) in cells {
        if let Cell::Failed(what) = cell {
            failed += 1;
            let (client, trial) = (clients[client].name, trials[trial]);
            println!("---- FAIL: {client}, {}: {}\n{what}\n", trial.name, trial.shows);
        }
    }
    print!("{}", rendered(clients, trials, cells));
    for (client, why) in absent {
        println!("SKIPPED: {client} was not tried at all: {why}");
    }
    if std::env::var_os("CONFORMANCE_TIMES").is_some() {
        print!("{}", slowest(clients, trials, cells));
    }
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{failed} cells failed");
    ExitCode::FAILURE
}

/// Prints the trials and what each of them shows.
#[expect(clippy::print_stdout, reason = "this is a program")]
pub(crate) fn list(trials: &[&Trial]) {
    for trial in trials {
        let needs =
            if trial.needs.is_empty() { String::new() } else { format!(" ({})", trial.needs.join(", ")) };
        println!("{}{needs}\n    {}", trial.name, trial.shows);
    }
}

fn rendered(clients: &[Client], trials: &[&Trial], cells: &Cells) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    let first = trials.iter().map(|trial| trial.name.len()).max().unwrap_or_default();
    let width = |client: &Client| client.name.len().max("convicted".len());
    let mut table = " ".repeat(first);
    for client in clients {
        let _ = write!(table, "  {:width$}", client.name, width = width(client));
    }
    table.push('\n');
    for (row, trial) in trials.iter().enumerate() {
        let _ = write!(table, "{:first$}", trial.name);
        for (column, client) in clients.iter().enumerate() {
            let text = match cells.get(&(column, row)).map(|(cell, _)| cell) {
                Some(Cell::Ok) => "ok".to_owned(),
                Some(Cell::Convicted) => "convicted".to_owned(),
                Some(Cell::Failed(_)) => "FAIL".to_owned(),
                Some(Cell::NotApplicable(reason)) => {
                    let known = reasons.iter().position(|known| known == reason);
                    letter(known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    }))
                }
                None => "?".to_owned(),
            };
            let _ = write!(table, "  {text:width$}", width = width(client));
        }
        table.push('\n');
    }
    for (place, reason) in reasons.iter().enumerate() {
        let _ = writeln!(table, "{}: {reason}", letter(place));
    }
    table
}

/// a, b, … z, aa, ab, …
fn letter(place: usize) -> String {
    let last = char::from(b"abcdefghijklmnopqrstuvwxyz"[place % 26]);
    let before = if place < 26 { String::new() } else { letter(place / 26 - 1) };
    format!("{before}{last}")
}

/// The cells that took longest, for those who make the kit faster.
fn slowest(clients: &[Client], trials: &[&Trial], cells: &Cells) -> String {
    let mut times: Vec<_> = cells.iter().map(|(place, (_, time))| (*time, *place)).collect();
    times.sort();
    let total: Duration = times.iter().map(|(time, _)| *time).sum();
    let mut text = format!("all cells together: {total:.1?}\n");
    for (time, (client, trial)) in times.iter().rev().take(25) {
        let _ = writeln!(text, "{time:8.1?}  {}, {}", clients[*client].name, trials[*trial].name);
    }
    text
}
