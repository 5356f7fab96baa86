//! A program that loads the library at run time, unloads it, and loads modules that do the same.

use crate::program::{Linkage, Program, is_sanitized};

#[test]
fn the_library_can_be_unloaded_at_any_moment_and_loaded_again() {
    if is_sanitized() {
        // A sanitizer's runtime cannot be loaded after the program has started.
        return;
    }
    let module = Program::compile("module", Linkage::Module);
    // The same file would count as one module and be loaded once.
    let other = format!("{}-too", module.path());
    std::fs::copy(module.path(), &other).unwrap();
    let program = Program::compile("loading", Linkage::AtRunTime);
    program.run(&[module.path(), &other]);
    program.run_forking_under_valgrind(&[module.path(), &other]);
}
