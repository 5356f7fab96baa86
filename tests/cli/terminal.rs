//! The commands in a terminal, which script(1) simulates: what is typed, and what is shown.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually;
use crate::support::server::program;
use crate::tool::{Running, Site, await_end, state, until, with_default_signals};

/// A program in a terminal, and its output so far.
pub(crate) struct Terminal {
    script: Running,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Makes the shell run `line` in a terminal; `lockd` in it is the program under test.
    pub(crate) fn run(site: &Site, line: &str) -> Self {
        let program = program().into_string().unwrap();
        let mut command = with_default_signals("script");
        command.args(["-qefc", &format!("lockd() {{ \"{program}\" \"$@\"; }}; {line}"), "/dev/null"]);
        site.prepare(&mut command);
        command.env("SHELL", "/bin/sh").stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (seen, mut out) = (Arc::<Mutex<Vec<u8>>>::default(), child.stdout.take().unwrap());
        let see = seen.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut chunk) {
                see.lock().unwrap().extend(&chunk[..count]);
            }
        });
        Self { script: Running(child), seen }
    }

    pub(crate) fn types(&mut self, keys: &[u8]) {
        self.script.0.stdin.as_mut().unwrap().write_all(keys).unwrap();
    }

    pub(crate) fn sees(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).contains(text)
    }
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn a_ctrl_c_reaches_the_command_once() {
    let site = Site::start();
    let script = format!("trap 'echo int >> heard' INT; echo $$ > pid; {}; exit 4", until("stop"));
    // The shell that started it gets the signal, too.
    let line = format!("trap : INT; lockd run a -- sh -c \"{}\"; exit $?", script.replace('$', "\\$"));
    let mut terminal = Terminal::run(&site, &line);
    let run = parent(site.pid("pid"));
    // What comes while a command is being started is passed on, since it may not have reached it.
    eventually("lockd run watches its command", || state(run) == Some('S'));
    terminal.types(b"\x03");
    assert_eq!(site.line("heard"), "int");
    site.write("stop");
    assert_eq!(terminal.script.code(), 4);
    assert_eq!(site.line("heard"), "int");
}

#[test]
fn a_ctrl_c_brings_the_prompt_back_while_the_lock_outlives_its_command() {
    let site = Site::start();
    let line = "trap : INT; lockd run --at-least 86400 a -- sh -c 'echo $$ > pid; exit 3'; exit $?";
    let mut terminal = Terminal::run(&site, line);
    let process = format!("/proc/{}", site.pid("pid"));
    eventually("its end is seen", || !std::path::Path::new(&process).exists());
    assert_eq!(site.server.message().try_lock("a")["status"], "timeout");
    terminal.types(b"\x03");
    assert_eq!(terminal.script.code(), 3);
    site.server.await_free("a");
}

#[test]
fn a_ctrl_c_reaches_a_command_that_has_left_the_process_group() {
    for outer in ["timeout 1000", "setsid"] {
        let site = Site::start();
        let script =
            "trap 'echo int > heard; exit 4' INT; echo $$ > pid; sleep 1000 & while :; do wait; done";
        let line =
            format!("trap : INT; lockd run a -- {outer} sh -c \"{}\"; exit $?", script.replace('$', "\\$"));
        let mut terminal = Terminal::run(&site, &line);
        let pid = site.pid("pid");
        terminal.types(b"\x03");
        await_end(pid);
        assert_eq!((site.line("heard"), terminal.script.code()), ("int".to_owned(), 4), "{outer}");
    }
}

#[test]
fn a_ctrl_c_ends_a_loop_of_the_shell() {
    if !Command::new("bash").arg("-c").arg("").status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: there is no bash");
        return;
    }
    // While the command runs, and while the lock is waited for.
    for is_held in [false, true] {
        let site = Site::start();
        let mut holder = site.server.message();
        if is_held {
            holder.lock("a");
        }
        let program = program().into_string().unwrap();
        let lines = format!(
            "while :; do echo >> rounds; {program} run a -- sh -c 'echo > runs; exec sleep 1000'; done"
        );
        std::fs::write(site.path("loop"), lines).unwrap();
        let mut terminal = Terminal::run(&site, "exec bash loop");
        if is_held {
            site.server.await_waiters("a", 1);
        } else {
            site.line("runs");
        }
        terminal.types(b"\x03");
        // As script(1) passes it on.
        assert_eq!(terminal.script.code(), 130);
        assert_eq!(std::fs::read_to_string(site.path("rounds")).unwrap(), "\n");
    }
}

#[test]
fn a_command_can_read_from_the_terminal_and_end_a_pipe() {
    let site = Site::start();
    let mut terminal = Terminal::run(&site, "lockd run a -- sh -c 'read x; echo got $x' | cat > piped");
    eventually("it runs", || site.said(&["inspect", "a"]).1.contains("held exclusively"));
    terminal.types(b"hello\n");
    assert_eq!(site.line("piped"), "got hello");
    assert_eq!(terminal.script.code(), 0);
}

#[test]
fn a_signal_reaches_the_command_and_its_children_and_no_other_process() {
    let site = Site::start();
    let script = "sh -c 'echo \\$\\$ > pid2; exec sleep 1000' & echo \\$\\$ > pid; echo \\$PPID > run; wait";
    let line = format!("lockd run a -- sh -c \"{script}\"; echo $? > code; {}", until("stop"));
    let mut terminal = Terminal::run(&site, &line);
    let pids = [site.pid("pid"), site.pid("pid2")];
    kill(site.pid("run"), Signal::TERM);
    assert_eq!(site.line("code"), "143");
    pids.into_iter().for_each(await_end);
    site.write("stop");
    assert_eq!(terminal.script.code(), 0);
}

#[test]
fn a_lost_lock_ends_the_command_and_its_children_and_no_other_process() {
    let site = Site::start();
    let script = "sh -c 'trap : TERM; echo \\$\\$ > pid2; while :; do sleep 0.01; done' & echo \\$\\$ > pid; exec sleep 1000";
    let line = format!("lockd run --grace 0.3 a -- sh -c \"{script}\"; echo $? > code; {}", until("stop"));
    let mut terminal = Terminal::run(&site, &line);
    let pids = [site.pid("pid"), site.pid("pid2")];
    site.server.signal(Signal::KILL);
    assert_eq!(site.line("code"), "76");
    pids.into_iter().for_each(await_end);
    site.write("stop");
    assert_eq!(terminal.script.code(), 0);
}

#[test]
fn a_lock_that_is_lost_ends_a_background_process_whose_parent_has_gone() {
    let site = Site::start();
    let script = "(sh -c 'echo \\$\\$ > pid2; exec sleep 1000' &) ; echo \\$\\$ > pid; exec sleep 1000";
    let line = format!("lockd run a -- sh -c \"{script}\"; echo $? > code; {}", until("stop"));
    let mut terminal = Terminal::run(&site, &line);
    let pids = [site.pid("pid"), site.pid("pid2")];
    site.server.signal(Signal::KILL);
    assert_eq!(site.line("code"), "76");
    let lived = pids.map(|pid| state(pid).is_some());
    site.write("stop");
    assert_eq!(terminal.script.code(), 0);
    assert_eq!(lived, [false, false]);
}

#[test]
fn a_watch_shows_locks_as_they_come_until_ctrl_c() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("first\u{1b}[31m");
    let mut terminal = Terminal::run(&site, "lockd watch -i 0.1");
    eventually("the first lock is shown", || terminal.sees(r"first\u{1b}[31m  exclusive"));
    assert!(terminal.sees("\u{1b}[HNAME"));
    holder.lock("second");
    eventually("the second lock is shown", || terminal.sees("second"));
    site.server.signal(Signal::KILL);
    eventually("a server that is gone is told", || terminal.sees("cannot be reached"));
    terminal.types(b"\x03");
    assert_eq!(terminal.script.code(), 130);
}

#[test]
fn a_command_can_be_stopped_with_ctrl_z_and_brought_back() {
    let site = Site::start();
    let mut terminal = Terminal::run(&site, "exec sh -im");
    let program = program().into_string().unwrap();
    let line = format!("{program} run a -- sh -c 'echo $$ > pid; echo $PPID > run; exec sleep 1000'");
    terminal.types(format!("{line}\n").as_bytes());
    let pids = [site.pid("pid"), site.pid("run")];
    // The shell may not yet have given them the terminal.
    eventually("it sleeps", || state(pids[0]) == Some('S'));
    terminal.types(b"\x1a");
    for pid in pids {
        eventually("it is stopped", || state(pid) == Some('T'));
    }
    assert_eq!(site.server.message().try_lock("a")["status"], "timeout");
    terminal.types(b"fg\n");
    for pid in pids {
        eventually("it goes on", || state(pid).is_some_and(|state| state != 'T'));
    }
    terminal.types(b"\x03");
    pids.into_iter().for_each(await_end);
    site.server.await_free("a");
    terminal.types(b"exit 0\n");
    assert_eq!(terminal.script.code(), 0);
}
