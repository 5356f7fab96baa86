//! What every verb does, in this process and on a server, through the shared library, the static one, and
//! under valgrind: two programs, one about locks and one about queues, each for both kinds of session.

use crate::program::{Linkage, Program, Served};

const PROGRAMS: [&str; 2] = ["verbs", "queues"];

#[test]
fn they_do_so_in_this_process() {
    for name in PROGRAMS {
        Program::compile(name, Linkage::Shared).run(&[]);
    }
}

#[test]
fn they_do_the_same_on_a_server() {
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
fn they_do_the_same_linked_statically() {
    let server = Served::start();
    for name in PROGRAMS {
        let program = Program::compile(name, Linkage::Static);
        program.run(&[]);
        program.run(&[&server.tcp()]);
        server.await_no_connections();
    }
}

#[test]
fn they_are_clean_under_valgrind() {
    let server = Served::start();
    for name in PROGRAMS {
        let program = Program::compile(name, Linkage::Shared);
        program.run_under_valgrind(&[]);
        program.run_under_valgrind(&[&server.unix()]);
        server.await_no_connections();
    }
}
