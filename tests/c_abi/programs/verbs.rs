//! What every verb does, in this process and on a server, through the shared library, the static
//! one, and under valgrind. Each program runs with both kinds of session. They are about locks,
//! queues, conversions in slices, limited locks, listing, and closing sessions that a thread has left
//! open.

use std::time::Duration;

use lockd::Session;
use lockd::broker::Mode;

use crate::program::{Linkage, Program, Served};

const PROGRAMS: [&str; 6] = ["verbs", "queues", "conversions", "limited", "listing", "closing"];

#[test]
fn every_verb_works_in_this_process() {
    for name in PROGRAMS {
        Program::compile(name, Linkage::Shared).run(&[]);
    }
}

#[test]
fn every_verb_works_on_a_server() {
    let server = Served::start();
    for name in PROGRAMS {
        let program = Program::compile(name, Linkage::Shared);
        program.run(&[&server.tcp()]);
        server.await_no_connections();
        program.run(&[&server.unix()]);
        server.await_no_connections();
    }
}

#[test]
fn every_verb_works_linked_statically() {
    let server = Served::start();
    for name in PROGRAMS {
        let program = Program::compile(name, Linkage::Static);
        program.run(&[]);
        program.run(&[&server.tcp()]);
        server.await_no_connections();
    }
}

#[test]
fn every_verb_is_clean_under_valgrind() {
    let server = Served::start();
    for name in PROGRAMS {
        let program = Program::compile(name, Linkage::Shared);
        program.run_under_valgrind(&[]);
        program.run_under_valgrind(&[&server.unix()]);
        server.await_no_connections();
    }
}

#[test]
fn a_listing_continues_after_names_that_c_cannot_express() {
    let server = Served::start();
    let session = Session::connect(&server.tcp(), None, Duration::from_secs(10)).unwrap();
    for start in ["zero", "zerp"] {
        let more = (1..10).map(|digit| format!("{start}\0{digit}"));
        for name in more.chain([start.to_owned()]) {
            session.acquire(name.as_bytes(), Mode::Exclusive, None).unwrap();
        }
    }
    Program::compile("listing", Linkage::Shared).run_under_valgrind(&[&server.unix(), "zeros"]);
}
