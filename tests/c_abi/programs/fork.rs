//! Programs that fork: children that misuse handles they have inherited, and children that use the
//! library themselves, regardless of what their parent's threads were doing at the time of the
//! fork.

use tempfile::TempDir;

use crate::program::{Linkage, Program, is_sanitized};

/// Runs the program, but not with a sanitizer: a leak checker would report in the child what it has
/// inherited.
fn run(linkage: Linkage, name: &str, more: &[&str]) {
    if !is_sanitized() {
        let directory = TempDir::new().unwrap();
        let path = [directory.path().to_str().unwrap()];
        Program::compile(name, linkage).run(&[&path, more].concat());
    }
}

fn run_under_valgrind(name: &str, more: &[&str]) {
    let directory = TempDir::new().unwrap();
    let path = [directory.path().to_str().unwrap()];
    Program::compile(name, Linkage::Static).run_forking_under_valgrind(&[&path, more].concat());
}

#[test]
fn a_child_cannot_use_its_parents_handles() {
    run(Linkage::Shared, "fork", &[]);
    run(Linkage::Static, "fork", &[]);
}

#[test]
fn a_child_is_clean_under_valgrind() {
    run_under_valgrind("fork", &[]);
}

#[test]
fn a_child_of_a_busy_parent_never_hangs() {
    run(Linkage::Shared, "fork_busy", &["300"]);
}

#[test]
fn a_child_of_a_busy_parent_is_clean_under_valgrind() {
    run_under_valgrind("fork_busy", &["5"]);
}
