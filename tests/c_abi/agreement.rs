//! Rust and C agree on the signature of every function, on the sizes, alignments and members of
//! structs and on the numbers of enums, as the two compilers see them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{build_directory, checked, root};
use crate::sources::Declared;

fn directory(name: &str) -> PathBuf {
    let directory = build_directory().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn compile_c(source: &Path, object: &Path, flags: &[&str]) -> std::process::Output {
    let mut command = Command::new("cc");
    command.args(["-c", "-std=c11"]).args(flags).arg("-I").arg(root().join("include"));
    command.arg(source).arg("-o").arg(object).output().unwrap()
}

#[test]
fn every_signature_in_the_header_matches_the_function() {
    let directory = directory("signatures");
    let (source, object) = (directory.join("signatures.c"), directory.join("signatures.o"));
    // C requires that two declarations of a function are the same.
    let declarations = Declared::read().as_c_declarations();
    std::fs::write(&source, format!("#include \"lockd.h\"\n{declarations}")).unwrap();
    let flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
    checked(compile_c(&source, &object, &flags), "the header compared with the sources");

    let wrong = declarations.replacen("uint64_t *", "uint32_t *", 1);
    std::fs::write(&source, format!("#include \"lockd.h\"\n{wrong}")).unwrap();
    assert!(!compile_c(&source, &object, &flags).status.success(), "a difference must be noticed");
}

#[test]
fn structs_enums_and_symbols_are_the_same_for_both_compilers() {
    let directory = directory("layout");
    let bindings = directory.join("lockd_sys.rs");
    std::fs::write(&bindings, Declared::read().as_rust_bindings()).unwrap();

    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut generator = ctest::TestGenerator::new();
    generator.header("lockd.h").out_dir(&directory).target(&target).edition(2024);
    generator.alias_is_c_enum(|name| ["lock_status", "lock_mode", "lock_event"].contains(&name));
    // Structs that C knows by name only have no size there.
    generator.skip_struct(|item| Declared::read().handles.iter().any(|handle| handle == item.ident()));
    generator.rename_struct_ty(|name| name.starts_with("lock_").then(|| name.to_owned()));
    generator.generate_files(&bindings, "generated.rs").unwrap();

    let object = directory.join("generated.o");
    let flags = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"];
    checked(compile_c(&directory.join("generated.c"), &object, &flags), "the C side");
    let main = directory.join("main.rs");
    let (bindings, generated) = (bindings.display(), directory.join("generated.rs"));
    std::fs::write(&main, format!("include!({:?});\ninclude!({:?});\n", bindings.to_string(), generated))
        .unwrap();
    let executable = directory.join("layout");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "--cap-lints", "allow"]).arg(&main).arg("-o").arg(&executable);
    rustc.arg(format!("-Clink-arg={}", object.display()));
    rustc.arg(format!("-Lnative={}", build_directory().display())).arg("-ldylib=lockd");
    rustc.arg(format!("-Clink-arg=-Wl,-rpath,{}", build_directory().display()));
    checked(rustc.output().unwrap(), "the Rust side");
    let output = checked(Command::new(&executable).output().unwrap(), "Rust compared with C");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("PASSED"), "{said}");
}
