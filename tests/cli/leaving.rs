//! Processes that a command has started and that have left it, into another session or to another
//! parent. If the lock is lost, they are ended with the command; if the command ends by itself,
//! they are left alone.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::support::eventually;
use crate::support::server::program;
use crate::tool::{Running, Site, argument, await_end, state, until, with_default_signals};

/// A script that writes its process id to `file`, ignores SIGTERM, and runs until that file is
/// removed.
fn stubborn(file: &str) -> String {
    format!("trap '' TERM; echo $$ > {file}; while [ -e {file} ]; do sleep 0.01; done")
}

/// A script in the site's directory, for a command to start with sh(1). (A file that was just
/// written cannot always be executed: another test may be starting a process, which has it open for
/// writing for a moment.)
fn script(site: &Site, name: &str, text: &str) {
    std::fs::write(site.path(name), text).unwrap();
}

/// How many processes have this working directory.
fn working_in(directory: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let directories = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    directories.filter(|path| path == directory.components().as_path()).count()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_child_in_a_session_of_its_own_is_ended_with_the_command() {
    let site = Site::start();
    script(&site, "away", &stubborn("pid2"));
    let mut running = site.run(&["--grace", "0.3", "a"], "echo $$ > pid; setsid sh away & wait; wait");
    let pids = [site.pid("pid"), site.pid("pid2")];
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
    assert!(pids.iter().all(|&pid| state(pid).is_none()), "both had ended before it said so");
    assert!(running.errors().contains("has been ended"));
}

#[test]
fn a_daemon_of_the_command_is_ended_with_it_and_is_not_waited_for_once_it_has_ended() {
    let site = Site::start();
    script(&site, "daemon", "setsid sh -c 'echo $$ > pid2; exec sleep 1000' & ");
    let mut running = site.run(&["--grace", "1000", "a"], "sh daemon; echo $$ > pid; exec sleep 1000");
    let pids = [site.pid("pid"), site.pid("pid2")];
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
    assert!(pids.iter().all(|&pid| state(pid).is_none()));
}

#[test]
fn processes_that_start_one_another_and_end_are_caught() {
    let site = Site::start();
    // Each starts the next one and ends; all in one process group.
    script(&site, "chain", "trap '' TERM; echo $$ > pid2; [ -e pid ] && sh chain &");
    let mut running = site.run(&["--grace", "0.1", "a"], "echo $$ > pid; sh chain; exec sleep 1000");
    site.pid("pid2");
    assert!(working_in(&site.path("")) > 0);
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
    assert!(running.errors().contains("has been ended"));
    assert_eq!(working_in(&site.path("")), 0);
}

#[test]
fn a_command_that_ends_by_itself_leaves_its_daemons_alone() {
    let site = Site::start();
    script(&site, "daemon", "setsid sh -c 'echo $$ > pid2; exec sleep 1000' >&- 2>&- & ");
    let mut running = site.run(&["a"], "sh daemon; while ! [ -s pid2 ]; do sleep 0.01; done; exit 3");
    assert_eq!(running.code(), 3);
    let daemon = site.pid("pid2");
    assert!(state(daemon).is_some());
    kill(daemon);
}

#[test]
fn children_that_were_there_before_are_left_alone() {
    let site = Site::start();
    let program = program().into_string().unwrap();
    script(&site, "before", "sh -c 'echo $$ > grandchild; exec sleep 1000' & echo $$ > other; wait");
    let line = format!(
        "sh before & while ! [ -s grandchild ]; do sleep 0.01; done
        exec {program} run a -- sh -c 'echo $$ > pid; exec sleep 1000'"
    );
    let mut command = with_default_signals("setsid");
    command.args(["sh", "-c", &line]);
    site.prepare(&mut command);
    let mut running = Running(command.spawn().unwrap());
    let (pid, others) = (site.pid("pid"), [site.pid("other"), site.pid("grandchild")]);
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
    let lived = others.map(|pid| state(pid).is_some());
    others.into_iter().for_each(kill);
    assert_eq!(lived, [true, true]);
    await_end(pid);
}

/// The command that makes the following shell process 1 of a namespace; `None` if the system does
/// not allow that.
fn as_process_1() -> Option<Command> {
    let namespace = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    if !Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = with_default_signals("unshare");
    command.args(namespace).args(["sh", "-c"]);
    Some(command)
}

#[test]
fn process_1_does_not_wait_for_orphans_that_have_ended() {
    let Some(mut command) = as_process_1() else {
        println!("SKIPPED: the system grants no namespace of processes");
        return;
    };
    let site = Site::start();
    let script = "(sleep 0.01 &); (setsid sleep 1000 &); (setsid sh -c \"sleep 0.01 & exec sleep 1000\" &); echo > ready; exec sleep 1000";
    let program = program().into_string().unwrap();
    command.arg(format!("exec {program} run --grace 1000 a -- sh -c '{script}'"));
    site.prepare(&mut command);
    let mut running = Running(command.spawn().unwrap());
    site.line("ready");
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
    assert!(running.errors().contains("has been ended"));
}

#[test]
fn process_1_waits_for_orphans_while_it_waits_for_the_lock() {
    let Some(mut command) = as_process_1() else {
        println!("SKIPPED: the system grants no namespace of processes");
        return;
    };
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("a");
    let program = program().into_string().unwrap();
    // The child of the subshell is adopted by process 1, and ends while that waits for the lock.
    let script =
        format!("(sh -c 'echo > orphan; {}; echo > ends' &); exec {program} run a -- true", until("go"));
    command.arg(script);
    site.prepare(&mut command);
    let mut running = Running(command.spawn().unwrap());
    site.line("orphan");
    site.server.await_waiters("a", 1);
    site.write("go");
    site.line("ends");
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let process_1 = std::fs::read_to_string(children).unwrap().trim().to_owned();
    let children = format!("/proc/{process_1}/task/{process_1}/children");
    // All threads of a process have the same children; orphans are adopted by the first thread.
    eventually("no orphan is left", || std::fs::read_to_string(&children).unwrap().trim().is_empty());
    holder.unlock("a");
    assert_eq!(running.code(), 0);
}

#[test]
fn a_process_that_may_not_be_signalled_is_named_and_not_reported_as_ended() {
    if !getuid().is_root() {
        println!("SKIPPED: only root can make a set-user-ID program for this");
        return;
    }
    let site = Site::start();
    let privileged = site.path("privileged");
    assert!(Command::new("cp").arg("/usr/bin/setpriv").arg(&privileged).status().unwrap().success());
    let all = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    all(&privileged, 0o4755);
    all(privileged.parent().unwrap(), 0o777);
    let mut command = with_default_signals("setsid");
    command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program());
    command.args(["run", "--grace", "0.1", "a", "--", argument(&privileged), "--reuid", "0"]);
    command.args(["sh", "-c", "echo $$ > pid; exec sleep 1000"]);
    site.prepare(&mut command);
    let mut running = Running(command.spawn().unwrap());
    let pid = site.pid("pid");
    site.server.signal(Signal::KILL);
    let code = running.code();
    let lives = state(pid).is_some();
    kill(pid);
    let errors = running.errors();
    assert_eq!((code, lives), (76, true), "{errors}");
    assert!(errors.contains(&format!("process {pid} (")) && errors.contains("not permitted"), "{errors}");
    assert!(!errors.contains("has been ended"), "{errors}");
}
