//! Programs that call lock_connect_and_acquire, which waits for the server, too.

use tempfile::TempDir;

use crate::program::{Linkage, Program, is_sanitized};

/// A directory for sockets, with the certificate of an authority. The libraries with sanitizers are
/// built without TLS.
fn directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    if !is_sanitized() {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(directory.path().join("ca.pem"), certified.cert.pem()).unwrap();
    }
    directory
}

fn run(name: &str) {
    let directory = directory();
    Program::compile(name, Linkage::Shared).run(&[directory.path().to_str().unwrap()]);
}

fn run_under_valgrind(name: &str) {
    let directory = directory();
    Program::compile(name, Linkage::Static).run_under_valgrind(&[directory.path().to_str().unwrap()]);
}

#[test]
fn the_call_waits_through_the_absence_of_its_server() {
    if !is_sanitized() {
        // A leak checker would report in the servers, which are children, what they have inherited.
        run("patient");
    }
}

#[test]
fn a_fork_during_the_call_keeps_no_connection_and_is_no_second_waiter() {
    if !is_sanitized() {
        run("patient_fork");
    }
}

#[test]
fn a_fork_during_the_call_is_clean_under_valgrind() {
    let directory = directory();
    let program = Program::compile("patient_fork", Linkage::Static);
    program.run_forking_under_valgrind(&[directory.path().to_str().unwrap()]);
}

#[test]
fn its_wait_is_ended_by_report_and_by_signals_in_every_phase() {
    run("patient_ends");
}

#[test]
fn its_end_is_clean_under_valgrind() {
    run_under_valgrind("patient_ends");
}
