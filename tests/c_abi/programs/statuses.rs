//! Every status that the header documents for a function occurs, and misuse has no effect other
//! than a status. The programs, and the statuses that they produce:
//!
//! - `statuses`: OK, PENDING, TIMEOUT, NOT_HELD, ALREADY_HELD, DEADLOCK, of every verb in every
//!   situation;
//! - `queues` (see `verbs`): CANCELLED; `misuse`: INVALID; `limits`: REFUSED, by a limit;
//! - `refusing`: REFUSED, by a server that is stopping, does not allow it or is too old; CANCELLED,
//!   of lock_enqueue; DEADLOCK, of lock_wait;
//! - `lost`: LOST; `serving` and `serving_with`: the statuses of servers, including IO;
//!   `connecting`: how lock_connect fails; `patient` and `patient_ends`: how lock_connect_and_acquire
//!   fails;
//! - `errors`: the texts of all statuses.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lockd::broker::Broker;
use lockd::server::{Call, Responder, Service};
use serde_json::json;
use tempfile::TempDir;

use crate::program::{Linkage, Program, Served};

/// Runs a program for both kinds of session, in this process and on a server. On the server it also
/// runs under valgrind.
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
fn every_verb_returns_the_right_status_in_every_situation() {
    run_here_and_there("statuses");
}

#[test]
fn invalid_arguments_are_refused_and_change_nothing() {
    run_here_and_there("misuse");
}

#[test]
fn a_session_that_waits_for_too_many_names_is_refused() {
    let server = Served::start();
    let program = Program::compile("limits", Linkage::Shared);
    program.run(&[]);
    program.run(&[&server.tcp()]);
    server.await_no_connections();
}

#[test]
fn a_session_is_lost_with_its_server_whatever_it_is_doing() {
    run_with_directory("lost");
}

#[test]
fn an_address_that_cannot_be_served_is_an_error_and_nothing_is_served() {
    run_with_directory("serving");
}

#[test]
fn a_server_takes_its_options_by_their_names() {
    run_with_directory("serving_with");
}

#[test]
fn a_failure_to_connect_names_the_address_and_the_reason() {
    run_with_directory("connecting");
}

#[test]
fn every_status_has_a_text_and_every_thread_has_its_own_last_error() {
    let program = Program::compile("errors", Linkage::Shared);
    program.run(&[]);
    program.run_under_valgrind(&[]);
}

#[test]
fn a_server_that_is_stopping_refuses_waiting_and_new_requests() {
    /// How many calls of the program wait.
    const WAITS: usize = 4;

    let broker = Broker::default();
    let server = Served::with(&broker, Service::locks());
    let program = Program::compile("refusing", Linkage::Shared);
    thread::scope(|scope| {
        let running = scope.spawn(|| program.run(&[&server.unix(), "stopping"]));
        let end = Instant::now() + Duration::from_secs(60);
        while broker.stats().waiting < WAITS && !running.is_finished() {
            assert!(Instant::now() < end, "the program's calls do not wait");
            thread::sleep(Duration::from_millis(2));
        }
        broker.shut();
    });
}

#[test]
fn a_server_that_does_not_allow_inspecting_refuses_it() {
    let mut service = Service::locks();
    service.on("inspect", |call: &mut Call<'_, '_>| {
        call.reply(&json!({"status": "refused", "reason": "inspecting is disabled"}));
    });
    service.on("list", |call: &mut Call<'_, '_>| {
        call.reply(&json!({"status": "unknown", "command": "list"}));
    });
    let server = Served::with(&Broker::default(), service);
    Program::compile("refusing", Linkage::Shared).run(&[&server.unix(), "blind"]);
}

#[test]
fn a_server_that_is_older_than_limited_locks_is_not_asked_for_one() {
    let mut service = Service::locks();
    service.on("hello", |call: &mut Call<'_, '_>| {
        let keepalive = json!({
            "idle": 10, "interval": 5, "probes": 3, "userTimeout": 25, "deadPeerTimeout": 25
        });
        call.reply(&json!({
            "status": "ok", "server": "lockd", "version": "0.1.0", "features": ["convert", "mode"],
            "keepalive": keepalive,
        }));
    });
    let server = Served::with(&Broker::default(), service);
    Program::compile("refusing", Linkage::Shared).run(&[&server.unix(), "old"]);
}

#[test]
fn lock_enqueue_can_be_cancelled_while_the_server_has_not_answered() {
    let mut service = Service::locks();
    // If a request has to wait, lock_enqueue waits for the reply to a ping.
    service.on("ping", |_: &mut Call<'_, '_>| {});
    let server = Served::with(&Broker::default(), service);
    Program::compile("refusing", Linkage::Shared).run(&[&server.unix(), "silent"]);
}

#[test]
fn lock_wait_reports_the_deadlock_of_a_call_that_was_interrupted_before_the_reply() {
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
