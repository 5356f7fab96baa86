//! The shared library as it was linked: the symbols that it exports, its soname, and that every
//! exported function catches panics.

use std::process::Command;

use quote::ToTokens;

use crate::program::{checked, library_directory, root};
use crate::sources::{Declared, name_of};

fn tool(name: &str, arguments: &[&str]) -> String {
    let library = library_directory().join("liblockd.so");
    let output = Command::new(name).args(arguments).arg(library).output();
    let output = checked(output.expect("binutils come with the C compiler"), name);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn exactly_the_listed_symbols_are_exported() {
    let listed = std::fs::read_to_string(root().join("include/lockd.symbols")).unwrap();
    let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
    let table = tool("nm", &["--dynamic", "--defined-only", "--format=posix"]);
    // A sanitizer adds its own symbols.
    let is_own = |name: &&str| !name.starts_with("__") && !name.contains("san_");
    let exported: Vec<&str> =
        table.lines().map(|line| line.split(' ').next().unwrap()).filter(is_own).collect();
    assert_eq!(exported, listed);

    let declared: Vec<String> = Declared::read().functions.iter().map(name_of).collect();
    assert_eq!(declared, listed);
}

#[test]
fn every_exported_function_catches_panics() {
    for function in Declared::read().functions {
        let last = function.block.stmts.last().map(|last| last.to_token_stream().to_string());
        let last = last.expect("a body");
        let is_guarded = ["guard (", "unsafe { guard_"].iter().any(|call| last.starts_with(call));
        assert!(is_guarded, "{} does not catch panics: {last}", name_of(&function));
        let before = function.block.stmts.len() - 1;
        let is_harmless = |statement: &syn::Stmt| {
            let text = statement.to_token_stream().to_string();
            text.starts_with("const ") || text.starts_with("let body = |")
        };
        assert!(function.block.stmts[..before].iter().all(is_harmless), "{}", name_of(&function));
    }
}

#[test]
fn the_library_is_found_by_its_soname_and_stays_in_memory() {
    let dynamic = tool("readelf", &["--dynamic", "--wide"]);
    assert!(dynamic.contains("Library soname: [liblockd.so.1]"), "{dynamic}");
    assert!(dynamic.lines().any(|line| line.contains("FLAGS_1") && line.contains("NODELETE")), "{dynamic}");
}
