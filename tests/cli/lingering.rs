//! `lockd run --at-least`: the lock outlives its command, and what ends that early.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::eventually;
use crate::tool::{Running, Site, state, until};

/// Longer than any test takes: what ends earlier was ended by something else.
const LONG: &str = "86400";

/// `lockd run` with these arguments and the script. The script has ended, `lockd run` knows that,
/// and the lock is held.
fn lingering(site: &Site, arguments: &[&str], script: &str) -> Running {
    let running = site.run(&[&["--at-least", LONG], arguments].concat(), &format!("echo $$ > pid; {script}"));
    await_reaped(&running, site.pid("pid"));
    assert!(is_held(site), "it is kept");
    running
}

/// Waits until `lockd run` has seen the end of this process, and has nothing to do.
fn await_reaped(running: &Running, pid: i32) {
    let process = format!("/proc/{pid}");
    eventually("its end is seen", || !Path::new(&process).exists());
    eventually("it waits", || state(running.pid()) == Some('S'));
}

fn is_held(site: &Site) -> bool {
    site.server.message().call("inspect", json!({"lockName": "a"}))["holders"] == json!(1)
}

#[test]
fn a_lock_is_kept_for_as_long_as_was_said_and_the_status_is_passed_on() {
    let site = Site::start();
    for (arguments, script, code) in [
        (&["a"][..], "exit 0", 0),
        (&["-E", "9", "-n", "a"], "exit 75", 75),
        (&["-s", "a", "b"], "exit 7", 7),
        (&["-q", "a"], "kill -KILL $$", 137),
    ] {
        let start = Instant::now();
        let mut running = site.run(&[&["--at-least", "0.3"], arguments].concat(), script);
        assert_eq!(running.code(), code, "{script}");
        assert!(start.elapsed() >= Duration::from_millis(300));
        assert_eq!(running.errors(), "");
        // The release was confirmed before.
        assert!(!is_held(&site));
    }
}

#[test]
fn a_job_that_fails_or_is_killed_keeps_others_from_running_it() {
    let site = Site::start();
    for (script, code) in [("exit 1", 1), ("exit 127", 127), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let mut running = lingering(&site, &["a"], script);
        let (refused, out, errors) = site.said(&["run", "-n", "a", "--", "echo", "run"]);
        assert_eq!((refused, &*out), (75, ""), "{errors}");
        assert_eq!(site.said(&["run", "-q", "-n", "-E", "9", "a", "--", "echo", "run"]).0, 9);
        running.signal(Signal::TERM);
        assert_eq!(running.code(), code);
        std::fs::remove_file(site.path("pid")).unwrap();
    }
}

#[test]
fn a_shared_lock_lingers_alike() {
    let site = Site::start();
    let mut running = lingering(&site, &["-s", "a"], "exit 3");
    assert_eq!(site.said(&["run", "-n", "a", "--", "true"]).0, 75);
    assert_eq!(site.said(&["run", "-n", "-s", "a", "--", "true"]).0, 0);
    running.signal(Signal::HUP);
    assert_eq!(running.code(), 3);
}

#[test]
fn a_signal_ends_the_lingering_with_the_commands_status() {
    let site = Site::start();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut running = lingering(&site, &["a"], "exit 5");
        running.signal(signal);
        let ended = running.wait();
        assert_eq!((ended.code(), ended.signal()), (Some(5), None), "{signal:?}");
        assert_eq!(running.errors(), "");
        // Released, and not lost: otherwise the next holder is told that it is orphaned.
        let granted = site.server.message().try_lock("a");
        assert_eq!((&granted["status"], granted.get("orphaned")), (&json!("ok"), None), "{granted}");
        site.server.await_free("a");
        std::fs::remove_file(site.path("pid")).unwrap();
    }
}

#[test]
fn who_ends_the_command_by_a_signal_need_not_repeat_it() {
    let site = Site::start();
    let script = "trap 'exit 4' TERM; echo > runs; while :; do sleep 0.01; done";
    let mut running = site.run(&["--at-least", LONG, "a"], script);
    site.line("runs");
    running.signal(Signal::TERM);
    assert_eq!(running.code(), 4);
}

#[test]
fn a_signal_that_only_tells_the_command_something_does_not_shorten_the_time() {
    let site = Site::start();
    let script = format!("trap 'echo > heard' USR1; echo > runs; {}; echo $$ > pid", until("stop"));
    let mut running = site.run(&["--at-least", LONG, "a"], &script);
    site.line("runs");
    running.signal(Signal::USR1);
    site.line("heard");
    site.write("stop");
    await_reaped(&running, site.pid("pid"));
    assert!(is_held(&site) && running.0.try_wait().unwrap().is_none());
    running.signal(Signal::TERM);
    assert_eq!(running.code(), 0);
}

/// That it ended with `code` and one line, which says that the lock was lost too late to matter.
fn assert_lost_later(running: &mut Running, code: i32) {
    assert_eq!(running.code(), code);
    let errors = running.errors();
    assert!(errors.starts_with("lockd: the lock was lost after the command had ended"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_lock_that_is_lost_after_the_command_has_ended_ends_the_lingering_with_its_status() {
    for (signal, code) in [(Signal::KILL, 0), (Signal::TERM, 6)] {
        let site = Site::start();
        let mut running = lingering(&site, &["-E", "9", "a"], &format!("exit {code}"));
        site.server.signal(signal);
        assert_lost_later(&mut running, code);
    }
}

#[test]
fn a_kick_gives_a_lingering_lock_to_the_next_one_at_once() {
    let site = Site::with(&["--allow-kick"]);
    // The server would wait for a command, for as long as the grace.
    let mut running = lingering(&site, &["--grace", "3590", "a"], "exit 0");
    let mut next = site.run(&["a"], "exit 2");
    site.server.await_waiters("a", 1);
    let listed = site.server.message().call("list", json!({}));
    let address = listed["locks"][0]["holders"][0]["address"].as_str().unwrap().to_owned();
    assert_eq!(site.said(&["kick", &address]).0, 0);
    assert_lost_later(&mut running, 0);
    assert_eq!(next.code(), 2);
}

#[test]
fn what_a_command_leaves_running_is_left_alone_when_the_lock_is_lost() {
    let site = Site::start();
    let daemon = format!("setsid sh -c 'echo > daemon; {}; echo > lived' > /dev/null 2>&1 &", until("go"));
    let mut running = lingering(&site, &["a"], &format!("{daemon} {}", until("daemon")));
    site.server.signal(Signal::KILL);
    assert_lost_later(&mut running, 0);
    site.write("go");
    site.line("lived");
}

#[test]
fn a_command_that_takes_longer_frees_its_lock_when_it_ends() {
    let site = Site::start();
    let start = Instant::now();
    // The time begins with the grant, and has passed when the command ends.
    let script = format!("echo > runs; {}; exit 8", until("stop"));
    let mut running = site.run(&["--at-least", "0.05", "a"], &script);
    site.line("runs");
    eventually("the time has passed", || start.elapsed() > Duration::from_millis(100));
    assert!(is_held(&site));
    site.write("stop");
    assert_eq!(running.code(), 8);
    assert!(!is_held(&site));
}

#[test]
fn a_lock_that_is_lost_while_the_command_runs_is_a_loss_all_the_same() {
    let site = Site::start();
    let mut running = site.run(&["--at-least", LONG, "a"], "echo > runs; exec sleep 1000");
    site.line("runs");
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
}

#[test]
fn a_command_that_cannot_be_started_keeps_no_other_host_from_running_it() {
    let site = Site::start();
    for (program, code) in [("./no-such-program", 127), ("/dev/null", 126)] {
        let (is, _, errors) = site.said(&["run", "-n", "--at-least", LONG, "a", "--", program]);
        assert_eq!(is, code, "{errors}");
        assert_eq!(site.said(&["run", "-n", "a", "--", "echo", "run"]).1, "run\n");
    }
}

#[test]
fn a_time_that_makes_no_sense_is_refused() {
    let site = Site::start();
    for (seconds, complaint) in
        [("86401", "more than 86400 seconds"), ("-1", "from 0 up"), ("5m", "from 0 up"), ("", "from 0 up")]
    {
        let (code, out, errors) = site.said(&["run", "--at-least", seconds, "a", "--", "echo", "run"]);
        assert_eq!((code, &*out), (2, ""), "{errors}");
        assert!(errors.contains(complaint), "{errors}");
    }
}
