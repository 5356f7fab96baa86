//! A program that loads the library at run time, unloads it, and loads parts that do the same.

use crate::program::{Linkage, Program, is_sanitized};

#[test]
fn it_can_be_unloaded_at_any_moment_and_loaded_again() {
    if is_sanitized() {
        // A sanitizer's runtime cannot come later than the program.
        return;
    }
    let modules = [(); 2].map(|()| Program::compile("module", Linkage::Module));
    let program = Program::compile("loading", Linkage::AtRunTime);
    program.run(&[modules[0].path(), modules[1].path()]);
    program.run_forking_under_valgrind(&[modules[0].path(), modules[1].path()]);
}
