//! What drivers need before they can be started: a compiler, an interpreter, the library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) fn drivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/drivers")
}

/// The library that the clients in C and by FFI use: the one that cargo has built for this test, or
/// one with a planted fault.
pub(crate) fn library() -> PathBuf {
    let built = || std::env::current_exe().expect("a program has a path").with_file_name("liblockd.so");
    std::env::var_os("CONFORMANCE_LIBRARY").map_or_else(built, PathBuf::from)
}

/// The program that `python3` leads to: it may be a script that first searches for it.
pub(crate) fn python() -> &'static Option<PathBuf> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let asked =
            Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
        let path = String::from_utf8(asked.stdout).ok()?;
        asked.status.success().then(|| PathBuf::from(path.trim_end()))
    })
}

/// A directory for this process, so that several runs at a time do not disturb each other.
fn build_directory() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    // What processes that were killed have left.
    for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            // Another process may be removing it at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    all.join(std::process::id().to_string())
}

/// The driver in C, compiled once; or what the compiler says.
pub(crate) fn compiled() -> &'static Result<PathBuf, String> {
    static COMPILED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let directory = build_directory();
        let library = library();
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        // The program asks for the library by its soname.
        for name in ["liblockd.so", "liblockd.so.1"] {
            let linked = std::os::unix::fs::symlink(&library, directory.join(name));
            linked.map_err(|error| error.to_string())?;
        }
        let program = directory.join("driver");
        let mut command = Command::new("cc");
        command.args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-g",
            "-O1",
            "-D_GNU_SOURCE",
            "-pthread",
            "-I",
        ]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
        command
            .arg(drivers().join("c/driver.c"))
            .arg("-o")
            .arg(&program)
            .arg("-L")
            .arg(&directory)
            .arg("-llockd");
        command.arg(format!("-Wl,-rpath,{}", directory.display()));
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(program)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
}
