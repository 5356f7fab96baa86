//! A program that loads the library at run time, unloads it, and loads parts that do the same.

use crate::program::{Linkage, Program, is_sanitized};

#[test]
fn it_can_be_unloaded_at_any_moment_and_loaded_again() {
    if is_sanitized() {
        // A sanitizer's runtime cannot come later than the program.
        return;
    }
    let module = Program::compile("module", Linkage::Module);
    // The same file would be one module, loaded once.
    let other = format!("{}-too", module.path());
    std::fs::copy(module.path(), &other).unwrap();
    let program = Program::compile("loading", Linkage::AtRunTime);
    program.run(&[module.path(), &other]);
    program.run_forking_under_valgrind(&[module.path(), &other]);
}
