//! Programs whose waits are disturbed: by signal handlers, by lock_cancel, and by servers that
//! stop.

use tempfile::TempDir;

use crate::program::{Linkage, Program, Served, is_sanitized};

#[test]
fn an_interrupted_wait_keeps_its_place() {
    let server = Served::start();
    Program::compile("signals", Linkage::Shared).run(&[&server.unix()]);
    Program::compile("signals", Linkage::Static).run(&[&server.tcp()]);
    server.await_no_connections();
}

#[test]
fn interrupted_waits_are_clean_under_valgrind() {
    let server = Served::start();
    Program::compile("signals", Linkage::Static).run_under_valgrind(&[&server.unix()]);
}

#[test]
fn nothing_is_lost_in_a_storm_of_signals() {
    let server = Served::start();
    let storm = Program::compile("storm", Linkage::Shared);
    let rounds = if is_sanitized() { "500" } else { "4000" };
    storm.run(&[&server.unix(), rounds]);
    storm.run(&[&server.tcp(), rounds]);
    server.await_no_connections();
}

#[test]
fn a_storm_of_signals_is_clean_under_valgrind() {
    let server = Served::start();
    Program::compile("storm", Linkage::Static).run_under_valgrind(&[&server.unix(), "50"]);
}

#[test]
fn lock_cancel_ends_every_wait() {
    let server = Served::start();
    let cancel = Program::compile("cancel", Linkage::Shared);
    cancel.run(&[]);
    cancel.run(&[&server.tcp()]);
    let cancel = Program::compile("cancel", Linkage::Static);
    cancel.run_under_valgrind(&[]);
    cancel.run_under_valgrind(&[&server.unix()]);
    server.await_no_connections();
}

#[test]
fn a_grant_that_is_read_after_the_end_of_the_server_is_not_believed() {
    if is_sanitized() {
        // A leak checker would report in the child what it has inherited.
        return;
    }
    let directory = TempDir::new().unwrap();
    Program::compile("stopped", Linkage::Shared).run(&[directory.path().to_str().unwrap()]);
}

#[test]
fn a_poll_loop_is_told_of_grants_and_of_the_end() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    Program::compile("lost_fd", Linkage::Shared).run(&[path]);
    Program::compile("lost_fd", Linkage::Static).run_under_valgrind(&[path]);
}

#[test]
fn a_session_that_resumes_is_in_doubt_until_the_verdict() {
    if is_sanitized() {
        // A leak checker would report in the servers, which are children, what they have inherited.
        return;
    }
    let directory = TempDir::new().unwrap();
    Program::compile("resuming", Linkage::Shared).run(&[directory.path().to_str().unwrap()]);
}
