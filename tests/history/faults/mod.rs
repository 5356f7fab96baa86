//! Fault runs: the real server, over real sockets, in all protocols, with clients in separate
//! processes that are killed, stopped and misbehave, and a server that is killed and comes back.
//! Afterwards the checker decides whether the recorded calls fit, and the counters that the locks
//! guarded must have lost no increment.
//!
//! The schedule of faults and the clients' choices follow from the printed seed. How the kernel
//! schedules them does not.
//!
//! - `run`: carries out a run. `fleet`, `child`: the processes of clients. `daemon`: the server.
//! - `client`: what a client does. `wire`: how it speaks. `log`: what it records. `counter`: what
//!   its locks guard.
//! - `gather`: combines all records into one history. `local`: the same clients as threads of this
//!   process.
//! - `upgrades`: has the server replace itself while all that goes on.
//! - `resuming`: sessions that resume, and what breaks connections.
//! - `failovers`: several servers as a cluster, which take over from one another.
//! - `slots`: many clients of one limited lock, which are killed.

mod child;
mod client;
mod counter;
mod daemon;
mod failovers;
mod fleet;
mod gather;
mod local;
mod log;
mod resuming;
mod run;
mod slots;
mod upgrades;
mod wire;

use crate::checker::Model;
use crate::plan::Mix;
use run::{Scenario, run, run_here};

/// A mix for real clients, with shorter times: what takes no time in a simulation does here.
const fn real(mix: Mix) -> Mix {
    Mix { names: 6, hold: (0, 400_000), idle: (0, 200_000), limit: (1_000_000, 30_000_000), ..mix }
}

#[test]
fn clients_that_are_killed_stopped_or_misbehave_break_nothing() {
    let mix = Mix { sets: 10, ..real(Mix::READ_WRITE) };
    let (history, _) = run(Scenario { name: "a short run", mix, ..Scenario::USUAL });
    assert!(history.calls.len() > 500, "only {} calls", history.calls.len());
}

#[test]
fn holders_of_limited_locks_that_are_killed_stopped_or_kicked_break_nothing() {
    let mix = real(Mix::LIMITED);
    let (history, verdict) =
        run(Scenario { name: "a short run with limited locks", mix, kicks: 60, ..Scenario::USUAL });
    assert!(history.calls.len() > 500, "only {} calls", history.calls.len());
    let of_limit = verdict.checked.get(&Model::Limit).copied().unwrap_or_default();
    assert!(of_limit > 100, "only {of_limit} calls for limited locks");
}

#[test]
fn holders_that_the_server_hangs_up_on_break_nothing() {
    let mix = Mix { sets: 10, ..real(Mix::READ_WRITE) };
    let (history, _) = run(Scenario { name: "a short run with kicks", mix, kicks: 20, ..Scenario::USUAL });
    let kicked: Vec<_> = history.sessions.iter().filter(|session| session.hung_up_at.is_some()).collect();
    assert!(!kicked.is_empty(), "no client was kicked");
    assert!(kicked.iter().any(|session| session.lost_at.is_some()), "no kicked client found out");
}

#[test]
fn a_server_that_is_killed_and_comes_back_breaks_nothing() {
    let scenario = Scenario { server_kills: 250, server_stops: 450, ..Scenario::USUAL };
    let (history, _) =
        run(Scenario { name: "a short run with a server that dies", mix: real(Mix::MUTEX), ..scenario });
    assert!(history.servers.len() > 2, "the server was not killed");
    assert!(history.calls.len() > 500, "only {} calls", history.calls.len());
}

#[test]
fn a_server_that_keeps_its_state_grants_nothing_until_old_holders_have_found_out() {
    let scenario = Scenario {
        name: "a short run with a server that keeps its state",
        mix: Mix { idle: (0, 10_000_000), ..real(Mix::MUTEX) },
        processes: 2,
        threads: 3,
        millis: 13_500,
        server_kills: 300,
        server_faults_max: 1,
        keeps_state: true,
        alone: false,
        ..Scenario::USUAL
    };
    let (history, verdict) = run(scenario);
    assert!(history.servers.iter().any(|server| server.grace > 0), "the server was not killed");
    let asked_after = verdict.checked.get(&Model::Recovery).copied().unwrap_or_default();
    assert!(asked_after > 0, "no grant by the server that had a grace to keep");
}

#[test]
fn threads_of_this_process_break_nothing() {
    let mix = Mix { hold: (0, 100_000), idle: (0, 50_000), ..real(Mix::SETS) };
    let (history, _) = run_here("threads of one process", mix, 6, 40_000, 2000);
    assert!(history.calls.len() > 500, "only {} calls", history.calls.len());
    let mix = Mix { hold: (0, 100_000), idle: (0, 50_000), ..real(Mix::LIMITED) };
    let (history, _) = run_here("limited locks in one process", mix, 6, 40_000, 2000);
    assert!(history.calls.len() > 500, "only {} calls", history.calls.len());
}

/// A million calls with all kinds of client faults, and `here` more calls in this process.
fn deep(name: &'static str, mix: Mix, here: u64) {
    // With more faults, nearly all of the time would be spent waiting for clients that are stopped.
    let (kills, pauses, calls) = (300, 1000, DEEP_CALLS * 11 / 10);
    let scenario =
        Scenario { name, mix: real(mix), kills, pauses, calls, millis: 300_000, ..Scenario::USUAL };
    let (history, _) = run(scenario);
    assert!(history.calls.len() as u64 >= DEEP_CALLS, "only {} calls", history.calls.len());
    let mix = Mix { hold: (0, 20_000), idle: (0, 10_000), ..real(mix) };
    let (history, _) = run_here(&format!("{name}, in one process"), mix, 6, here * 11 / 10, 120_000);
    assert!(history.calls.len() as u64 >= here, "only {} calls", history.calls.len());
}

/// The least number of calls over sockets that a deep run must check.
const DEEP_CALLS: u64 = 1_000_000;

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_mutex() {
    deep("mutex", Mix::MUTEX, DEEP_CALLS);
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_read_write() {
    deep("read/write", Mix::READ_WRITE, DEEP_CALLS);
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_limited() {
    deep("limited", Mix::LIMITED, DEEP_CALLS);
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_sets() {
    // Two in five of these calls are about several locks at once.
    deep("several at once", Mix::SETS, DEEP_CALLS * 5 / 2);
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_restarts() {
    let scenario =
        Scenario { mix: real(Mix::SETS), server_kills: 1500, server_stops: 2500, ..Scenario::USUAL };
    run(Scenario { name: "a server that dies again and again", millis: 12_000, ..scenario });
    let scenario = Scenario { server_kills: 15_000, server_stops: 0, keeps_state: true, ..scenario };
    run(Scenario { name: "one that keeps its state", millis: 36_000, ..scenario });
    let scenario = Scenario { server_stops: 9000, ..scenario };
    run(Scenario { name: "the same, also stopped cleanly", millis: 36_000, ..scenario });
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_pauses() {
    // Longer than the time after which the server considers a silent host gone, plus a margin.
    let (pauses, pause_ms) = (4000, (12_500, 13_500));
    let scenario = Scenario { processes: 6, pauses, pause_ms, millis: 30_000, ..Scenario::USUAL };
    run(Scenario { name: "clients stopped for long", mix: real(Mix::READ_WRITE), ..scenario });
    run(Scenario { name: "the same with limited locks", mix: real(Mix::LIMITED), ..scenario });
}
