//! A program that checks that the library leaves no traces in its process: threads, signal
//! handlers, signals, descriptors, output.

use tempfile::TempDir;

use crate::program::{Linkage, Program, Served, is_sanitized};

#[test]
fn the_library_leaves_no_trace_in_its_host() {
    if is_sanitized() {
        // A sanitizer leaves its own traces.
        return;
    }
    let (server, directory) = (Served::start(), TempDir::new().unwrap());
    let path = directory.path().to_str().unwrap();
    for linkage in [Linkage::Shared, Linkage::Static] {
        Program::compile("no_traces", linkage).run(&[&server.unix(), path]);
    }
    server.await_no_connections();
}

#[test]
fn the_search_for_traces_is_clean_under_valgrind() {
    let (server, directory) = (Served::start(), TempDir::new().unwrap());
    let path = directory.path().to_str().unwrap();
    Program::compile("no_traces", Linkage::Static).run_forking_under_valgrind(&[&server.tcp(), path]);
}
