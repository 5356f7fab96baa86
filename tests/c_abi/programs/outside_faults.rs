//! Programs with problems from outside the library: a server that does not reply, threads that are
//! cancelled, descriptors that are closed while the library uses them.

use tempfile::TempDir;

use crate::program::{Linkage, Program, Served, is_sanitized};

#[test]
fn every_call_to_a_server_that_does_not_answer_can_be_ended() {
    let directory = TempDir::new().unwrap();
    Program::compile("unanswered", Linkage::Shared).run(&[directory.path().to_str().unwrap()]);
}

#[test]
fn a_thread_that_is_cancelled_ends_outside_the_library() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    for linkage in [Linkage::Shared, Linkage::Static] {
        Program::compile("thread_cancel", linkage).run(&[path]);
    }
}

#[test]
fn a_session_whose_descriptors_are_closed_is_lost_and_leaves_others_alone() {
    if is_sanitized() {
        // A sanitizer has descriptors of its own, which the program would close.
        return;
    }
    let (first, second) = (Served::start(), Served::start());
    Program::compile("closed_descriptors", Linkage::Shared).run(&[&first.tcp(), &second.unix()]);
    first.await_no_connections();
    second.await_no_connections();
}
