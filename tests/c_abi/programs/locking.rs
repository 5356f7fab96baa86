//! A program that increments a counter under a lock, in its own process and on a server, from one
//! source.

use crate::program::{Linkage, Program, Served, is_sanitized};

#[test]
fn no_increment_of_an_unprotected_counter_is_lost() {
    let server = Served::start();
    let counter = Program::compile("counter", Linkage::Shared);
    counter.run(&[]);
    counter.run(&[&server.unix(), if is_sanitized() { "10000" } else { "100000" }]);
    server.await_no_connections();
}

#[test]
fn the_counter_is_clean_under_valgrind() {
    let server = Served::start();
    let counter = Program::compile("counter", Linkage::Static);
    counter.run_under_valgrind(&[&server.tcp(), "1000"]);
}
