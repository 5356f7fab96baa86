//! Signals to `lockd run` without a terminal, while the command runs and while it waits for the
//! lock.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::eventually;
use crate::support::server::program;
use crate::tool::{Running, Site, await_end, state, until, with_default_signals};

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
fn the_commands_children_get_the_signal_too() {
    let site = Site::start();
    let script = "sh -c 'echo $$ > pid2; exec sleep 1000' & echo $$ > pid; wait";
    let mut running = site.run(&["a"], script);
    let pids = [site.pid("pid"), site.pid("pid2")];
    running.signal(Signal::TERM);
    assert_eq!(running.code(), 143);
    pids.into_iter().for_each(await_end);
}

#[test]
fn a_stopped_command_keeps_the_lock_and_continues() {
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
    for (signal, name, own, status) in [
        (Signal::INT, "SIGINT", Some(2), None),
        (Signal::TERM, "SIGTERM", None, Some(143)),
        (Signal::HUP, "SIGHUP", None, Some(129)),
    ] {
        for arguments in [&["a"][..], &["a", "b"]] {
            let mut waiting = site.run(arguments, "echo never > never");
            site.server.await_waiters("a", 1);
            waiting.signal(signal);
            let ended = waiting.wait();
            assert_eq!((ended.signal(), ended.code()), (own, status));
            let errors = waiting.errors();
            assert!(errors.contains(name) && errors.lines().count() == 1, "{errors}");
            site.server.await_waiters("a", 0);
        }
    }
    assert!(!site.path("never").exists());
}

#[test]
fn a_signal_ends_the_attempt_to_connect() {
    let site = Site::start();
    // A server that hangs accepts no connection, but its kernel does.
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
    // Without the signal it waits 20 seconds, until it can be sure that the connection is alive.
    let end = Instant::now() + Duration::from_secs(10);
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

/// `lockd run` with these arguments, started with exactly these signals ignored, as by nohup(1).
fn run_ignoring(site: &Site, signals: &str, arguments: &[&str]) -> Running {
    let mut command = with_default_signals("env");
    if !signals.is_empty() {
        command.arg(format!("--ignore-signal={signals}"));
    }
    command.arg("setsid").arg(program()).arg("run").args(arguments);
    site.prepare(&mut command);
    Running(command.spawn().unwrap())
}

#[test]
fn ignored_signals_stay_ignored() {
    let site = Site::start();
    let script = format!("echo $$ > pid; {}", until("stop"));
    let mut running = run_ignoring(&site, "HUP", &["a", "--", "sh", "-c", &script]);
    site.pid("pid");
    running.signal(Signal::HUP);
    site.write("stop");
    assert_eq!(running.code(), 0);
}

#[test]
fn the_command_ignores_what_lockd_run_was_started_to_ignore_and_nothing_else() {
    let site = Site::start();
    let bits = [("PIPE", 13), ("CHLD", 17), ("INT", 2), ("TERM", 15), ("WINCH", 28)]
        .map(|(name, number)| (name, 1_u64 << (number - 1)));
    let arguments = ["a", "--", "sed", "-n", "s/^SigIgn:[^0-9a-f]*//w ignored", "/proc/self/status"];
    for signals in ["PIPE,CHLD,INT,TERM,WINCH", "PIPE", "CHLD", ""] {
        assert_eq!(run_ignoring(&site, signals, &arguments).code(), 0);
        let mask = u64::from_str_radix(&site.line("ignored"), 16).unwrap();
        let ignored = bits.iter().filter(|(_, bit)| mask & bit != 0).map(|(name, _)| *name);
        assert_eq!(ignored.collect::<Vec<_>>().join(","), signals);
    }
}

#[test]
fn a_command_that_dies_of_sigint_takes_lockd_run_with_it() {
    let site = Site::start();
    for (signal, own, status) in [
        // A shell's loop ends only if the command has died of the signal.
        ("INT", Some(2), None),
        ("QUIT", None, Some(131)),
        ("TERM", None, Some(143)),
    ] {
        let ended = site.run(&["a"], &format!("kill -{signal} $$")).wait();
        assert_eq!((ended.signal(), ended.code()), (own, status), "{signal}");
        site.server.await_free("a");
    }
    // If the command handles the signal, its own exit status counts.
    assert_eq!(site.run(&["a"], "trap 'exit 3' INT; kill -INT $$").code(), 3);
}
