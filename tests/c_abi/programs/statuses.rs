//! Every status that the header names for a function is reached, and nothing but a status comes of
//! misuse. The programs, and which statuses they reach:
//!
//! - `statuses`: OK, PENDING, TIMEOUT, NOT_HELD, ALREADY_HELD, DEADLOCK, of every verb in every
//!   situation;
//! - `queues` (see `verbs`): CANCELLED; `misuse`: INVALID; `limits`: REFUSED, by a limit;
//! - `refusing`: REFUSED, by a server that is stopping or will not; CANCELLED, of lock_enqueue;
//!   DEADLOCK, of lock_wait;
//! - `lost`: LOST; `serving` and `serving_with`: those of servers, IO among them; `connecting`: how
//!   lock_connect fails;
//! - `errors`: what is said of them all.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lockd::broker::Broker;
use lockd::server::{Call, Responder, Service};
use serde_json::json;
use tempfile::TempDir;

use crate::program::{Linkage, Program, Served};

/// Runs a program for both kinds of session, in this process and on a server, there under valgrind
/// too.
fn run_here_and_there(name: &str) {
    let server = Served::start();
    let program = Program::compile(name, Linkage::Shared);
    program.run(&[]);
    program.run(&[&server.tcp()]);
    server.await_no_connections();
    program.run(&[&server.unix()]);
    server.await_no_connections();
    program.run_under_valgrind(&[&server.unix()]);
    server.await_no_connections();
}

/// Runs a program that serves its own sessions, with a directory for its sockets.
fn run_with_directory(name: &str) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    let program = Program::compile(name, Linkage::Shared);
    program.run(&[path]);
    program.run_under_valgrind(&[path]);
}

#[test]
fn every_verb_says_what_it_should_in_every_situation() {
    run_here_and_there("statuses");
}

#[test]
fn what_makes_no_sense_is_invalid_and_changes_nothing() {
    run_here_and_there("misuse");
}

#[test]
fn who_waits_for_too_much_is_refused() {
    let server = Served::start();
    let program = Program::compile("limits", Linkage::Shared);
    program.run(&[]);
    program.run(&[&server.tcp()]);
    server.await_no_connections();
}

#[test]
fn a_lost_server_is_the_end_of_the_session_whatever_it_does() {
    run_with_directory("lost");
}

#[test]
fn what_cannot_be_served_is_said_and_nothing_is_then() {
    run_with_directory("serving");
}

#[test]
fn a_server_is_told_its_options_by_their_names() {
    run_with_directory("serving_with");
}

#[test]
fn what_cannot_be_reached_is_said() {
    run_with_directory("connecting");
}

#[test]
fn every_status_is_explained_and_every_thread_has_its_own_last_error() {
    let program = Program::compile("errors", Linkage::Shared);
    program.run(&[]);
    program.run_under_valgrind(&[]);
}

#[test]
fn a_server_that_is_stopping_refuses_those_who_wait_and_those_who_come() {
    /// How many calls of the program wait.
    const WAITS: usize = 4;

    let broker = Broker::default();
    let server = Served::with(&broker, Service::locks());
    let program = Program::compile("refusing", Linkage::Shared);
    thread::scope(|scope| {
        let running = scope.spawn(|| program.run(&[&server.unix(), "stopping"]));
        let end = Instant::now() + Duration::from_secs(60);
        while broker.stats().waiting < WAITS && !running.is_finished() {
            assert!(Instant::now() < end, "the program does not wait");
            thread::sleep(Duration::from_millis(2));
        }
        broker.shut();
    });
}

#[test]
fn a_server_that_lets_nobody_look_refuses_to() {
    let mut service = Service::locks();
    service.on("inspect", |call: &mut Call<'_, '_>| {
        call.reply(&json!({"status": "refused", "reason": "nobody may look"}));
    });
    service.on("list", |call: &mut Call<'_, '_>| {
        call.reply(&json!({"status": "unknown", "command": "list"}));
    });
    let server = Served::with(&Broker::default(), service);
    Program::compile("refusing", Linkage::Shared).run(&[&server.unix(), "blind"]);
}

#[test]
fn lock_enqueue_can_be_cancelled_while_the_server_has_not_answered() {
    let mut service = Service::locks();
    // What lock_enqueue waits for if it has to queue.
    service.on("ping", |_: &mut Call<'_, '_>| {});
    let server = Served::with(&Broker::default(), service);
    Program::compile("refusing", Linkage::Shared).run(&[&server.unix(), "silent"]);
}

#[test]
fn lock_wait_tells_of_the_deadlock_of_a_call_that_was_interrupted_before_the_answer() {
    let waiting: Arc<Mutex<Option<Responder>>> = Arc::default();
    let mut service = Service::locks();
    let unanswered = waiting.clone();
    service.on("lock", move |call: &mut Call<'_, '_>| *unanswered.lock().unwrap() = call.responder());
    service.on("inspect", move |call: &mut Call<'_, '_>| {
        let responder = waiting.lock().unwrap().take();
        if let Some(responder) = responder {
            responder.reply(&json!({"status": "deadlock", "circle": ["this one", "that one"]}));
        }
        call.reply(&json!({"status": "ok"}));
    });
    let server = Served::with(&Broker::default(), service);
    Program::compile("refusing", Linkage::Shared).run(&[&server.unix(), "late"]);
}
