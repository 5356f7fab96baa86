//! Stopping a `lockd run`, and what becomes of its command and its lock. It stops only if all of
//! the command stops, and looks at the lock before the command goes on.

use std::fs::File;

use rustix::process::Signal;
use serde_json::json;

use crate::support::eventually;
use crate::support::server::program;
use crate::terminal::Terminal;
use crate::tool::{Running, Site, await_end, state, until};

fn await_stop(pid: i32) {
    eventually("it is stopped", || state(pid) == Some('T'));
}

fn await_continuation(pid: i32) {
    eventually("it goes on", || state(pid).is_some_and(|state| state != 'T'));
}

/// Kicks the one holder of `a`.
fn kick(site: &Site) {
    let listed = site.server.message().call("list", json!({}));
    let address = listed["locks"][0]["holders"][0]["address"].as_str().unwrap().to_owned();
    assert_eq!(site.said(&["kick", &address]).0, 0);
}

/// A shell with job control in a terminal, which runs `command` under the lock `a`. Returns the
/// ids of the process that writes its own to `pid`, and of `lockd run`.
fn in_shell(site: &Site, command: &str) -> (Terminal, [i32; 2]) {
    let mut terminal = Terminal::run(site, "exec sh -im");
    let program = program().into_string().unwrap();
    let line = format!("{program} run --grace 1 a -- {command}\n");
    terminal.types(line.as_bytes());
    let job = site.pid("pid");
    eventually("it runs", || site.said(&["inspect", "a"]).1.contains("held exclusively"));
    let listed = site.server.message().call("list", json!({}));
    let name = listed["locks"][0]["holders"][0]["name"].as_str().unwrap();
    let (_, run) = name.rsplit_once(", pid ").unwrap();
    let run = run.split_once(',').unwrap().0.parse().unwrap();
    eventually("it has the terminal", || state(job).is_some());
    (terminal, [job, run])
}

/// Its first line makes it write its id. It notices SIGTERM, and works on for ever. It starts no
/// process again and again: a shell that is about to do so stops only when the new one has started,
/// which it does not if it has been stopped first.
const JOB: &str = "trap 'echo term > heard' TERM; echo $$ > pid; sleep 1000 & while :; do wait; done";

#[test]
fn ctrl_z_stops_a_command_that_has_left_the_process_group() {
    let site = Site::with(&["--allow-kick"]);
    let (mut terminal, pids) =
        in_shell(&site, &format!("timeout 1000 sh -c \"{}\"", JOB.replace('$', "\\$")));
    terminal.types(b"\x1a");
    pids.into_iter().for_each(await_stop);
    terminal.types(b"fg\n");
    pids.into_iter().for_each(await_continuation);
    terminal.types(b"\x1a");
    pids.into_iter().for_each(await_stop);
    // The next session may have the lock by the time that the command goes on.
    kick(&site);
    let mut next = site.run(&["a"], &format!("echo > next; {}", until("end")));
    site.line("next");
    terminal.types(b"fg\n");
    pids.into_iter().for_each(await_end);
    assert!(!site.path("heard").exists(), "it worked on beside the next holder");
    site.write("end");
    assert_eq!(next.code(), 0);
}

#[test]
fn ctrl_z_stops_nothing_if_the_command_does_not_stop() {
    let site = Site::with(&["--allow-kick"]);
    let job = format!("trap '' TSTP; {JOB}").replace('$', "\\$");
    let (mut terminal, pids) = in_shell(&site, &format!("sh -c \"{job}\""));
    terminal.types(b"\x1a");
    eventually("it says so", || terminal.sees("not all of the command stops, so it goes on"));
    pids.into_iter().for_each(await_continuation);
    // The lock is watched.
    kick(&site);
    assert_eq!(site.line("heard"), "term");
    pids.into_iter().for_each(await_end);
}

#[test]
fn without_a_terminal_too_nothing_stops_unless_all_of_the_command_does() {
    let site = Site::with(&["--allow-kick"]);
    // A process in a session of its own ignores SIGTSTP, since no shell could continue it.
    let job = format!("exec setsid --wait sh -c '{}'", JOB.replace('\'', "'\\''"));
    let errors = File::create(site.path("errors")).unwrap();
    let mut tool = site.tool(&["run", "--grace", "1", "a", "--", "sh", "-c", &job]);
    let mut running = Running(tool.stderr(errors).spawn().unwrap());
    let pid = site.pid("pid");
    running.signal(Signal::TSTP);
    let said = || std::fs::read_to_string(site.path("errors")).unwrap();
    eventually("it says so", || said().contains("not all of the command stops"));
    kick(&site);
    assert_eq!(running.code(), 76);
    await_end(pid);
}

/// Nobody watches the lock while `lockd run` alone is stopped. When it is back, the grace of the
/// command is over.
#[test]
fn a_lock_that_was_lost_while_lockd_run_was_stopped_kills_the_command_at_once() {
    let site = Site::with(&["--allow-kick"]);
    let mut running = site.run(&["--grace", "1", "a"], JOB);
    let pid = site.pid("pid");
    running.signal(Signal::STOP);
    await_stop(running.pid());
    kick(&site);
    // Together with the time that the command gets, longer than its grace by far.
    let mut next = site.run(&["a"], "sleep 2");
    assert_eq!(next.code(), 0);
    running.signal(Signal::CONT);
    assert_eq!(running.code(), 76);
    await_end(pid);
    let said = running.errors();
    assert!(said.contains("is being killed, since it could not be watched"), "{said}");
    assert!(!site.path("heard").exists());
}

/// The kernel sends SIGHUP only to the leader of the session.
#[test]
fn a_terminal_that_is_gone_ends_the_command_of_a_session_leader() {
    let site = Site::start();
    let program = program().into_string().unwrap();
    let script = "trap 'echo hup > heard; exit 4' HUP; echo $$ > pid; sleep 1000 & while :; do wait; done";
    let line = format!("exec {program} run a -- sh -c \"{}\"", script.replace('$', "\\$"));
    let terminal = Terminal::run(&site, &line);
    let pid = site.pid("pid");
    drop(terminal);
    await_end(pid);
    assert_eq!(site.line("heard"), "hup");
    site.server.await_free("a");
}
