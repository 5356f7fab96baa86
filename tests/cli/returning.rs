//! A `lockd run` that has lost its server, or found none, and is back: when it asks for the lock
//! again, and what it says.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::place::{Place, held, stop};
use crate::support::eventually;
use crate::support::server::{Launch, Server};
use crate::support::socket::Endpoint;
use crate::tool::Site;

/// A command that notices SIGTERM, and then takes a second to end.
const SLOW_END: &str = "trap 'sleep 1; rm running; exit' TERM; touch running; while :; do sleep 0.05; done";

fn await_command(place: &Place) {
    eventually("the command runs", || place.site.path("running").exists());
}

/// A waiter that is away while a second server grants the lock and ends must spare the command
/// that has lost it, however long ago the waiter itself has lost the first server.
#[test]
fn a_waiter_that_missed_a_server_does_not_start_while_its_last_command_is_still_ending() {
    for signal in [Signal::TERM, Signal::KILL] {
        let place = Place::tcp();
        let (first, _holder) = held(&place);
        let mut waiting = place.run_with_grace("2", "errors", &["a"], "test ! -e running");
        first.await_waiters("a", 1);
        stop(first, signal);
        place.await_said("errors", "trying again");
        waiting.signal(Signal::STOP);
        let lost = Instant::now();
        let second = place.serve();
        let mut holder = place.run_with_grace("2", "holder", &["a"], SLOW_END);
        await_command(&place);
        eventually("its own loss is long ago", || lost.elapsed() > Duration::from_secs(4));
        stop(second, signal);
        let _third = place.serve();
        waiting.signal(Signal::CONT);
        assert_eq!((holder.code(), waiting.code()), (76, 0));
    }
}

/// It was started while there was no server, so it has lost none itself.
#[test]
fn a_run_that_has_found_no_server_spares_the_last_command_too() {
    let place = Place::tcp();
    let server = place.serve();
    let mut holder = place.run_with_grace("2", "holder", &["a"], SLOW_END);
    await_command(&place);
    stop(server, Signal::KILL);
    let mut waiting = place.run_with_grace("2", "errors", &["a"], "test ! -e running");
    place.await_said("errors", "no server, trying again");
    let _server = place.serve();
    assert_eq!((holder.code(), waiting.code()), (76, 0));
    let said = place.errors("errors");
    assert!(said.contains("a command that lost it with the last server may still be ending"), "{said}");
}

#[test]
fn a_run_that_finds_a_server_at_once_asks_at_once() {
    let site = Site::start();
    let (code, _, errors) = site.said(&["run", "-w", "5", "--grace", "3000", "a", "--", "true"]);
    assert_eq!((code, errors.as_str()), (0, ""));
}

/// A server that has been up for long has seen no restart.
#[test]
fn a_waiter_that_was_kicked_asks_again_at_once_and_says_what_may_have_happened() {
    let site = Site::with(&["--allow-kick"]);
    let mut holder = site.server.message();
    holder.lock("a");
    let mut observer = site.server.message();
    eventually("the server has been up for a while", || {
        observer.call("stats", json!({}))["uptime"].as_u64().unwrap() >= 3
    });
    let mut waiting = site.run(&["--grace", "1", "a"], "true");
    site.server.await_waiters("a", 1);
    let listed = observer.call("list", json!({}));
    let address = listed["locks"][0]["waiters"][0]["address"].as_str().unwrap().to_owned();
    assert_eq!(site.said(&["kick", &address]).0, 0);
    eventually("it waits in another session", || {
        let listed = observer.call("list", json!({}));
        listed["locks"][0]["waiters"][0]["address"].as_str().is_some_and(|again| again != address)
    });
    holder.unlock("a");
    assert_eq!(waiting.code(), 0);
    let said = waiting.errors();
    assert!(said.starts_with("lockd: a: the connection has ended (a restart, or lockd kick?), "), "{said}");
    assert!(!said.contains("no server") && said.lines().count() == 2, "{said}");
}

/// A server that is there when the time is over is no absent server, although there is too little
/// time to ask it.
#[test]
fn a_waiter_whose_time_is_over_soon_after_a_restart_says_that_there_is_a_server() {
    for grace in ["1", "60"] {
        let place = Place::tcp();
        let (server, _holder) = held(&place);
        let mut waiting = place.run_with_grace(grace, "errors", &["-w", "3", "a"], "true");
        server.await_waiters("a", 1);
        stop(server, Signal::KILL);
        place.await_said("errors", "trying again");
        let server = place.serve();
        let mut holder = server.message();
        holder.lock("a");
        assert_eq!(waiting.code(), 124, "{}", place.errors("errors"));
        if grace == "60" {
            let said = place.errors("errors");
            let last = said.lines().last().unwrap();
            assert!(last.starts_with("lockd: a: not acquired within 3 s: the server is new"), "{said}");
        }
    }
}

#[test]
fn a_server_that_hangs_while_the_lock_is_waited_for_is_no_server() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("a");
    let mut waiting = site.run(&["-w", "2", "-E", "9", "a"], "true");
    site.server.await_waiters("a", 1);
    site.server.signal(Signal::STOP);
    let code = waiting.code();
    site.server.signal(Signal::CONT);
    let said = waiting.errors();
    assert!(code == 69 && said.contains("does not answer"), "{code}: {said}");
}

#[test]
fn a_host_that_the_access_list_refuses_is_told_of_the_list() {
    let server = Launch::new().listen("message://127.0.0.1:0").args(["--allow", "10.0.0.0/8"]).start();
    let site = Site::start();
    let url = format!("message://{}", address_of(&server));
    let (code, _, errors) = site.said(&["run", "-w", "1", "--server", &url, "a", "--", "true"]);
    assert!(code == 69 && errors.contains("--allow"), "{errors}");
}

fn address_of(server: &Server) -> String {
    match server.tcp_endpoint("message") {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(_) => unreachable!("it was asked for over TCP"),
    }
}
