//! Sessions on several servers at once; the servers are in the program itself.

use tempfile::TempDir;

use crate::program::{Linkage, Program};

#[test]
fn two_servers_share_the_names_and_one_that_stops_takes_only_its_own_names() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    let program = Program::compile("two_servers", Linkage::Shared);
    program.run(&[path]);
    program.run_under_valgrind(&[path]);
}
