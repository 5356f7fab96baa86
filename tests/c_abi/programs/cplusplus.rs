//! The header compiles as C++17 without a warning, and a C++ program works as a C program does.

use crate::program::{Linkage, Program, Served};

#[test]
fn a_cplusplus_program_takes_locks_here_and_on_a_server() {
    let server = Served::start();
    for linkage in [Linkage::Shared, Linkage::Static] {
        let program = Program::compile_cplusplus("cplusplus", linkage);
        program.run(&[]);
        program.run(&[&server.tcp()]);
    }
    server.await_no_connections();
}
