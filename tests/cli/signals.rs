//! Signals that come to `lockd run` where there is no terminal, while the command runs and while it waits.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{DEADLINE, eventually};
use crate::tool::{Running, Site, await_end, state, until};

#[test]
fn signals_reach_the_command() {
    let site = Site::start();
    let all = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("TERM", Signal::TERM),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("ALRM", Signal::ALARM),
    ];
    let traps: String = all.map(|(name, _)| format!("trap 'echo got > {name}' {name}; ")).concat();
    let mut running = site.run(&["a"], &format!("{traps} echo > ready; {}; exit 4", until("stop")));
    site.line("ready");
    for (name, signal) in all {
        running.signal(signal);
        assert_eq!(site.line(name), "got");
    }
    site.write("stop");
    assert_eq!(running.code(), 4);
}

#[test]
fn what_the_command_has_started_gets_the_signal_too() {
    let site = Site::start();
    let script = "sh -c 'echo $$ > pid2; exec sleep 1000' & echo $$ > pid; wait";
    let mut running = site.run(&["a"], script);
    let pids = [site.pid("pid"), site.pid("pid2")];
    running.signal(Signal::TERM);
    assert_eq!(running.code(), 143);
    pids.into_iter().for_each(await_end);
}

#[test]
fn who_is_stopped_keeps_the_lock_and_goes_on() {
    let site = Site::start();
    let mut running = site.run(&["a"], "echo $$ > pid; exec sleep 1000");
    let pids = [site.pid("pid"), running.pid()];
    running.signal(Signal::TSTP);
    for pid in pids {
        eventually("it is stopped", || state(pid) == Some('T'));
    }
    assert_eq!(site.server.message().try_lock("a")["status"], "timeout");
    running.signal(Signal::CONT);
    for pid in pids {
        eventually("it goes on", || state(pid).is_some_and(|state| state != 'T'));
    }
    running.signal(Signal::TERM);
    assert_eq!(running.code(), 143);
}

#[test]
fn a_signal_ends_the_wait() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("a");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        for arguments in [&["a"][..], &["a", "b"]] {
            let mut waiting = site.run(arguments, "echo never > never");
            site.server.await_waiters("a", 1);
            waiting.signal(signal);
            assert_eq!(waiting.code(), code);
            site.server.await_waiters("a", 0);
        }
    }
    assert!(!site.path("never").exists());
}

#[test]
fn a_signal_ends_the_attempt_to_connect() {
    let site = Site::start();
    // A server that hangs accepts nobody, but its kernel does.
    site.server.signal(Signal::STOP);
    let mut waiting = site.run(&["a"], "echo never > never");
    eventually("it connects", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", waiting.pid()));
        tasks.into_iter().flatten().flatten().any(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "lockd-acquire\n")
        })
    });
    waiting.signal(Signal::TERM);
    assert_eq!(waiting.code(), 143);
    site.server.signal(Signal::CONT);
}

/// A command that held its lock and has ended with status 5, while the server was stopped.
fn ended_while_the_server_hangs() -> (Site, Running) {
    let site = Site::start();
    let running = site.run(&["a"], &format!("echo $$ > pid; {}; exit 5", until("stop")));
    let pid = site.pid("pid");
    site.server.signal(Signal::STOP);
    site.write("stop");
    await_end(pid);
    (site, running)
}

#[test]
fn a_signal_ends_the_wait_for_a_server_that_hangs_at_the_end_of_the_command() {
    let (site, mut running) = ended_while_the_server_hangs();
    running.signal(Signal::INT);
    // Without the signal it waits for longer, until it may be sure that the connection stands.
    let end = Instant::now() + DEADLINE / 2;
    while running.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "the signal has not ended it");
        std::thread::sleep(Duration::from_millis(2));
    }
    site.server.signal(Signal::CONT);
    assert_eq!(running.code(), 5, "the command held its lock until its end");
    site.server.await_free("a");
}

#[test]
fn a_server_that_is_lost_after_the_command_has_ended_changes_nothing() {
    let (site, mut running) = ended_while_the_server_hangs();
    let is_releasing = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim() == "lockd-release")
    };
    eventually("it gives the lock back", is_releasing);
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 5, "the command held its lock until its end");
}

#[test]
fn what_is_ignored_stays_so() {
    let site = Site::start();
    let script = format!("echo $$ > pid; {}", until("stop"));
    let mut command = site.tool(&["run", "a", "--", "sh", "-c", &script]);
    // As of nohup(1), by the shell's own means.
    let lockd: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(ToOwned::to_owned).collect();
    command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).args(lockd);
    site.prepare(&mut command);
    let mut running = Running(command.spawn().unwrap());
    site.pid("pid");
    running.signal(Signal::HUP);
    site.write("stop");
    assert_eq!(running.code(), 0);
}
