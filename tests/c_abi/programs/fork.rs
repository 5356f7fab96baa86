//! Programs that fork: children that misuse what they have inherited, and children that use the
//! library for themselves, whatever their parent's threads were at when they were made.

use tempfile::TempDir;

use crate::program::{Linkage, Program, is_sanitized};

/// Runs it, but not with a sanitizer: with a leak checker in it, a child would be blamed for what
/// it inherits.
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
fn a_child_is_not_its_parent() {
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
