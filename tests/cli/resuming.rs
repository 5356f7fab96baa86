//! `lockd run` when the connection to its server ends while the command runs: the session resumes,
//! and the command goes on. What else can become of it is in `resuming_ends`.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place::{Place, stop};
use crate::relay::Relay;
use crate::support::eventually;
use crate::support::server::{Server, program};
use crate::tool::{Running, argument, state, until};

pub(crate) const GOES_ON: &str = "the lock may still be held: the command goes on, and is ended in ";
pub(crate) const RESUMED: &str = "the session has resumed after ";

/// `lockd run` of a command that runs until the file `stop` is there, and its token.
pub(crate) fn hold(place: &Place, arguments: &[&str]) -> (Running, u64) {
    hold_at(place, &place.listen, arguments)
}

pub(crate) fn hold_at(place: &Place, url: &str, arguments: &[&str]) -> (Running, u64) {
    let script = format!("echo $LOCKD_TOKEN > token; {}; exit 5", until("stop"));
    let running = place.run_at(url, "0", "errors", arguments, &script);
    (running, place.site.line("token").parse().unwrap())
}

/// The one holder of `a`.
pub(crate) fn holder(place: &Place, server: &Server) -> Option<Value> {
    let listed = place.client(server).call("list", json!({"prefix": "a"}));
    listed["locks"][0]["holders"].as_array().and_then(|holders| holders.first()).cloned()
}

/// Waits until the session is back, and the lock still has this token.
pub(crate) fn await_resumed(place: &Place, server: &Server, token: u64) {
    eventually("it has resumed", || {
        holder(place, server)
            .is_some_and(|holder| holder["token"] == token && holder.get("inDoubt").is_none())
    });
}

#[test]
fn a_command_lives_through_a_crash_or_a_restart_and_the_next_one_waits_for_its_end() {
    for (place, signal) in
        [(Place::tcp(), Signal::KILL), (Place::tcp(), Signal::TERM), (Place::unix(), Signal::TERM)]
    {
        let place = place.with_state();
        let server = place.serve();
        let (mut running, token) = hold(&place, &["a"]);
        let mut waiting = place.run("waiting", &["a"], "echo $LOCKD_TOKEN > next");
        let await_waiter = |server: &Server| {
            let mut observer = place.client(server);
            eventually("it waits", || observer.call("inspect", json!({"lockName": "a"}))["waiters"] == 1);
        };
        await_waiter(&server);
        stop(server, signal);
        place.await_said("errors", GOES_ON);
        let server = place.serve();
        await_resumed(&place, &server, token);
        await_waiter(&server);
        place.await_said("errors", RESUMED);
        assert!(!place.site.path("next").exists());
        place.site.write("stop");
        assert_eq!((running.code(), waiting.code()), (5, 0));
        assert!(place.site.line("next").parse::<u64>().unwrap() > token);
        let said = place.errors("errors");
        assert!(
            said.starts_with("lockd: a: the connection to message") && said.lines().count() == 2,
            "{said}"
        );
    }
}

#[test]
fn a_reset_on_the_way_costs_nothing() {
    let place = Place::tcp().with_state();
    let server = place.serve();
    let relay = Relay::to(&place.listen);
    let (mut running, token) = hold_at(&place, &relay.url, &["a"]);
    for _ in 0..5 {
        let before = holder(&place, &server).unwrap();
        relay.reset();
        eventually("it has another connection", || {
            holder(&place, &server).is_some_and(|holder| {
                holder["address"] != before["address"] && holder.get("inDoubt").is_none()
            })
        });
        await_resumed(&place, &server, token);
        assert_eq!(place.said(&["-n", "a"]).0, 75);
    }
    place.site.write("stop");
    assert_eq!(running.code(), 5);
    assert_eq!(place.said(&["-n", "a"]).0, 0, "it is free at once");
    // What happens again and again is said once a minute.
    let said = place.errors("errors");
    assert!(said.contains(GOES_ON) && said.contains(RESUMED) && said.lines().count() == 2, "{said}");
}

#[test]
fn quiet_says_nothing_of_it_and_verbose_says_each_attempt() {
    for (option, words) in [("-q", None), ("--verbose", Some("lockd: a: attempt 1 to resume has failed: "))] {
        let place = Place::tcp().with_state();
        let server = place.serve();
        let (mut running, token) = hold(&place, &["-n", option, "a"]);
        stop(server, Signal::KILL);
        if let Some(words) = words {
            place.await_said("errors", words);
        }
        let server = place.serve();
        await_resumed(&place, &server, token);
        let (code, _, errors) = place.said(&["-n", "a"]);
        assert_eq!(code, 75, "{errors}");
        place.site.write("stop");
        assert_eq!(running.code(), 5);
        let said = place.errors("errors");
        assert_eq!(said.contains(RESUMED), words.is_some(), "{said}");
        assert!(words.is_some() || said.is_empty(), "{said}");
    }
}

/// The command sees no difference: signals reach it, and so does a stop.
#[test]
fn a_command_in_doubt_gets_signals_and_can_be_stopped_and_continued() {
    let place = Place::tcp().with_state();
    let server = place.serve();
    let script = "trap 'echo got > heard' USR1; sleep 1000 & echo $$ > pid; while :; do wait; done";
    let mut running = place.run("errors", &["a"], script);
    let pids = [place.site.pid("pid"), running.pid()];
    let token = holder(&place, &server).unwrap()["token"].as_u64().unwrap();
    stop(server, Signal::KILL);
    place.await_said("errors", GOES_ON);
    running.signal(Signal::USR1);
    assert_eq!(place.site.line("heard"), "got");
    running.signal(Signal::TSTP);
    for pid in pids {
        eventually("it is stopped", || state(pid) == Some('T'));
    }
    let server = place.serve();
    running.signal(Signal::CONT);
    for pid in pids {
        eventually("it goes on", || state(pid).is_some_and(|state| state != 'T'));
    }
    await_resumed(&place, &server, token);
    running.signal(Signal::TERM);
    assert_eq!(running.code(), 143);
    server.await_free("a");
}

#[test]
fn a_command_that_was_stopped_during_a_crash_goes_on_too() {
    let place = Place::tcp().with_state();
    let server = place.serve();
    let mut running = place.run("errors", &["a"], "echo $$ > pid; exec sleep 1000");
    let pids = [place.site.pid("pid"), running.pid()];
    let token = holder(&place, &server).unwrap()["token"].as_u64().unwrap();
    running.signal(Signal::TSTP);
    for pid in pids {
        eventually("it is stopped", || state(pid) == Some('T'));
    }
    stop(server, Signal::KILL);
    let server = place.serve();
    running.signal(Signal::CONT);
    await_resumed(&place, &server, token);
    running.signal(Signal::TERM);
    assert_eq!(running.code(), 143);
}

#[test]
fn a_lock_that_is_kept_for_some_time_is_kept_through_a_crash() {
    let place = Place::tcp().with_state();
    let server = place.serve();
    let script = "echo $LOCKD_TOKEN > token; exit 3";
    let mut running = place.run("errors", &["--at-least", "86400", "a"], script);
    let token = place.site.line("token").parse().unwrap();
    // Longer than a session may be in doubt: `lockd run` asks the server now and then.
    let granted = Instant::now();
    eventually("the grant is long ago", || granted.elapsed() > Duration::from_secs(9));
    stop(server, Signal::KILL);
    let server = place.serve();
    await_resumed(&place, &server, token);
    assert_eq!(place.said(&["-n", "a"]).0, 75);
    running.signal(Signal::TERM);
    assert_eq!((running.code(), place.errors("errors").as_str()), (3, ""));
    server.await_free("a");
}

/// An inner `lockd run` for the same name never gets the lock, also if it asks before the outer one
/// has resumed.
#[test]
fn a_lock_that_an_outer_command_holds_is_refused_after_a_crash_too() {
    for is_asked_before in [true, false] {
        let place = Place::tcp().with_state();
        let server = place.serve();
        let inner = format!(
            "{} run --server {} --grace 0 a -- echo never 2> inner",
            argument(program().as_ref()),
            place.listen
        );
        let mut running = place.run("errors", &["a"], &format!("echo > runs; {}; {inner}", until("go")));
        place.site.line("runs");
        place.site.write("inner");
        stop(server, Signal::KILL);
        place.await_said("errors", GOES_ON);
        let _server;
        if is_asked_before {
            place.site.write("go");
            place.await_said("inner", "no server");
            _server = place.serve();
        } else {
            _server = place.serve();
            place.await_said("errors", RESUMED);
            place.site.write("go");
        }
        assert_eq!(running.code(), 125, "{}", place.errors("inner"));
        assert!(place.errors("inner").contains("held by a lockd run that this one runs under"));
    }
}
