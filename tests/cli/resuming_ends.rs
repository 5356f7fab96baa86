//! `lockd run` when its session cannot resume, or ends while it is in doubt: the command is dead
//! before anybody else can have the lock.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::place::{Place, stop};
use crate::relay::Relay;
use crate::resuming::{GOES_ON, RESUMED, await_resumed, hold, holder};
use crate::support::eventually;
use crate::tool::{Running, await_end, state, until};

/// A command that has to be killed.
const STUBBORN: &str = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done";
/// Whether it still runs.
const BESIDE: &str = "if kill -0 $(cat pid); then echo beside > beside; fi";

#[test]
fn a_command_whose_server_stays_away_is_dead_before_anybody_else_can_have_the_lock() {
    let place = Place::tcp().with_state();
    let server = place.serve();
    let relay = Relay::to(&place.listen);
    let mut running = place.run_at(&relay.url, "3", "errors", &["a"], STUBBORN);
    let pid = place.site.pid("pid");
    // To this command the server stays away, while others find it at once.
    relay.cut();
    stop(server, Signal::KILL);
    let _server = place.serve();
    let mut next = place.run("next", &["a"], BESIDE);
    assert_eq!(running.code(), 76);
    assert!(state(pid).is_none());
    assert_eq!(next.code(), 0);
    assert!(!place.site.path("beside").exists());
    let said = place.errors("errors");
    let (_, left) = said.split_once(GOES_ON).unwrap();
    // 8.5 s, of which the command needs 4 to end.
    assert!(left.split_once("s ").unwrap().0.parse::<f64>().unwrap() <= 4.5, "{said}");
    assert!(said.contains("the lock may soon be lost, the command is being ended: "), "{said}");
    assert!(said.contains("the command has been ended") && said.lines().count() == 3, "{said}");
}

/// Its grace is longer than the time in which nobody else can have the lock. So it is ended at once,
/// and while that lasts, the session resumes.
#[test]
fn a_command_with_a_long_grace_is_ended_at_once_and_keeps_its_lock_meanwhile_if_it_can() {
    let place = Place::tcp().with_state();
    let server = place.serve();
    let script = format!(
        "trap 'echo > heard; {}; exit' TERM; echo $$ > pid; while :; do sleep 0.05; done",
        until("stop")
    );
    let mut running = place.run_with_grace("1000", "errors", &["a"], &script);
    place.site.pid("pid");
    let token = holder(&place, &server).unwrap()["token"].as_u64().unwrap();
    stop(server, Signal::TERM);
    place.site.line("heard");
    let server = place.serve();
    await_resumed(&place, &server, token);
    let mut next = place.run("next", &["a"], BESIDE);
    server.await_waiters("a", 1);
    place.site.write("stop");
    assert_eq!((running.code(), next.code()), (76, 0));
    assert!(!place.site.path("beside").exists());
    assert!(!place.errors("errors").contains(GOES_ON));
}

#[test]
fn a_kick_ends_the_command_and_the_lock_is_free_afterwards() {
    let place = Place::tcp().with_state_and(&["--allow-kick"]);
    let server = place.serve();
    let mut running = place.run_with_grace("1", "errors", &["a"], STUBBORN);
    let pid = place.site.pid("pid");
    let mut next = place.run("next", &["a"], BESIDE);
    server.await_waiters("a", 1);
    let address = holder(&place, &server).unwrap()["address"].as_str().unwrap().to_owned();
    let (code, _, errors) = place.site.said(&["kick", "--server", &place.listen, &address]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!((running.code(), next.code()), (76, 0));
    assert!(state(pid).is_none() && !place.site.path("beside").exists());
    let said = place.errors("errors");
    assert!(
        said.contains("the lock is lost, the command is being ended: ") && !said.contains(RESUMED),
        "{said}"
    );
    server.await_free("a");
}

#[test]
fn without_resume_or_without_a_state_directory_a_lost_connection_is_a_lost_lock() {
    for signal in [Signal::KILL, Signal::TERM] {
        for (place, arguments) in
            [(Place::tcp().with_state(), &["--no-resume", "a"][..]), (Place::tcp(), &["a"])]
        {
            let server = place.serve();
            let mut running = place.run("errors", arguments, "echo $$ > pid; exec sleep 1000");
            let pid = place.site.pid("pid");
            stop(server, signal);
            assert_eq!(running.code(), 76);
            await_end(pid);
            let said = place.errors("errors");
            assert!(said.starts_with("lockd: the lock is lost, the command is being ended"), "{said}");
        }
    }
}

/// While `lockd run` alone is stopped, it asks the server nothing. So after a crash it is lost.
#[test]
fn a_crash_while_lockd_run_is_stopped_for_long_kills_the_command_at_once() {
    let place = Place::tcp().with_state();
    let server = place.serve();
    let mut running = place.run_with_grace("1", "errors", &["a"], STUBBORN);
    let pid = place.site.pid("pid");
    running.signal(Signal::STOP);
    let stopped = Instant::now();
    eventually("it is stopped", || state(running.pid()) == Some('T'));
    stop(server, Signal::KILL);
    let _server = place.serve();
    eventually("it is too late", || stopped.elapsed() > Duration::from_secs(11));
    running.signal(Signal::CONT);
    assert_eq!(running.code(), 76);
    await_end(pid);
    let said = place.errors("errors");
    assert!(said.contains("is being killed, since it could not be watched"), "{said}");
}

/// Waits until the command has ended, and its lock is to be released.
fn await_release(running: &Running) {
    let tasks = format!("/proc/{}/task", running.pid());
    eventually("it gives the lock back", || {
        let threads = std::fs::read_dir(Path::new(&tasks)).unwrap();
        let mut names =
            threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.any(|name| name.trim() == "lockd-release")
    });
}

/// It has run under its lock to its end. That is released when the server is back, or a signal ends
/// the wait for it.
#[test]
fn a_command_that_ends_in_doubt_has_its_own_status() {
    for signal in [None, Some(Signal::TERM)] {
        let place = Place::tcp().with_state();
        let server = place.serve();
        let (mut running, _) = hold(&place, &["a"]);
        stop(server, Signal::TERM);
        place.await_said("errors", GOES_ON);
        place.site.write("stop");
        await_release(&running);
        match signal {
            Some(signal) => {
                running.signal(signal);
                assert_eq!(running.code(), 5);
            }
            None => {
                let server = place.serve();
                assert_eq!(running.code(), 5);
                // It was released, so it is no orphan.
                let request = json!({"lockName": "a", "timeout": 60});
                let granted = place.client(&server).call("lock", request);
                assert_eq!((&granted["status"], granted.get("orphaned")), (&json!("ok"), None), "{granted}");
            }
        }
    }
}
