//! Sessions on several servers at once, with servers that live in the program itself.

use tempfile::TempDir;

use crate::program::{Linkage, Program};

#[test]
fn two_servers_share_the_names_and_one_that_goes_takes_its_own() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    let program = Program::compile("two_servers", Linkage::Shared);
    program.run(&[path]);
    program.run_under_valgrind(&[path]);
}
