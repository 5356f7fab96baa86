//! `lockd run` when the lock is lost, or when it is killed itself: the command must end.

use std::io::{PipeReader, PipeWriter, Write, pipe};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually;
use crate::tool::{Running, Site, await_end, state};

#[test]
fn after_lockd_run_is_killed_the_lock_is_free_and_the_command_has_ended() {
    let site = Site::start();
    let mut running = site.run(&["a"], "echo $$ > pid; exec sleep 1000");
    let pid = site.pid("pid");
    running.signal(Signal::KILL);
    running.wait();
    site.server.await_free("a");
    await_end(pid);
}

#[test]
fn a_command_that_has_lost_its_lock_is_asked_to_end() {
    let site = Site::start();
    let script = "trap 'echo term > heard; exit 0' TERM; echo $$ > pid; while :; do sleep 0.01; done";
    let mut running = site.run(&["--grace", "1000", "a"], script);
    let pid = site.pid("pid");
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76, "whatever the command's own status");
    assert_eq!(site.line("heard"), "term");
    await_end(pid);
    let errors = running.errors();
    assert!(errors.contains("the lock is lost") && errors.contains("has been ended"), "{errors}");
}

#[test]
fn a_command_that_does_not_end_is_killed_with_all_that_it_has_started() {
    let site = Site::start();
    let stubborn = "trap '' TERM; echo $$ > pid2; while :; do sleep 0.01; done";
    let script = format!(
        "trap 'echo term >> heard' TERM; sh -c \"{}\" & echo $$ > pid; while :; do sleep 0.01; done",
        stubborn.replace('$', "\\$")
    );
    let mut running = site.run(&["--grace", "0.3", "a"], &script);
    let pids = [site.pid("pid"), site.pid("pid2")];
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
    assert_eq!(site.line("heard"), "term");
    pids.into_iter().for_each(await_end);
}

#[test]
fn processes_that_a_command_left_running_are_killed_too() {
    let site = Site::start();
    let stubborn = "trap '' TERM; echo \\$\\$ > pid2; while :; do sleep 0.01; done";
    let script = format!("sh -c \"{stubborn}\" & echo $$ > pid; exec sleep 1000");
    let mut running = site.run(&["--grace", "0.3", "a"], &script);
    let pids = [site.pid("pid"), site.pid("pid2")];
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
    pids.into_iter().for_each(await_end);
}

#[test]
fn a_stopped_command_is_told_of_the_loss() {
    let site = Site::start();
    let mut running = site.run(&["--grace", "1000", "a"], "echo $$ > pid; exec sleep 1000");
    let pid = site.pid("pid");
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    eventually("it is stopped", || state(pid) == Some('T'));
    site.server.signal(Signal::KILL);
    assert_eq!(running.code(), 76);
    await_end(pid);
}

#[test]
fn a_server_that_stops_cleanly_is_a_loss_too() {
    let mut site = Site::start();
    let mut running = site.run(&["a"], "echo $$ > pid; exec sleep 1000");
    let pid = site.pid("pid");
    site.server.signal(Signal::TERM);
    assert_eq!(running.code(), 76);
    await_end(pid);
    site.server.wait();
}

/// A full pipe: a write to it waits for a reader.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[0]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

#[test]
fn a_loss_is_handled_even_if_its_message_is_not_read() {
    let site = Site::start();
    let (_reader, writer) = full_pipe();
    let script = "echo $$ > pid; exec sleep 1000 2> /dev/null";
    let mut command = site.tool(&["run", "a", "--", "sh", "-c", script]);
    let mut running = Running(command.stderr(writer).spawn().unwrap());
    let pid = site.pid("pid");
    site.server.signal(Signal::KILL);
    await_end(pid);
    assert_eq!(running.code(), 76);
}

#[test]
fn a_refusal_is_handled_even_if_its_message_is_not_read() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("a");
    let (_reader, writer) = full_pipe();
    let mut command = site.tool(&["run", "-n", "a", "--", "true"]);
    let mut running = Running(command.stderr(writer).spawn().unwrap());
    assert_eq!(running.code(), 75);
}
