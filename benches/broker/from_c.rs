//! A C program that acquires and releases locks, compiled against the shared library of the same
//! build.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) struct PairsProgram(PathBuf);

impl PairsProgram {
    pub(crate) fn compile() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
        std::fs::create_dir_all(&directory).unwrap();
        let library = std::env::current_exe().unwrap().with_file_name("liblockd.so");
        for name in ["liblockd.so", "liblockd.so.1"] {
            let link = directory.join(name);
            // Fails the first time, when there is no link yet.
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&library, link).unwrap();
        }
        let executable = directory.join("pairs");
        let mut command = Command::new("cc");
        command.args(["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-I"]);
        command.arg(root.join("include")).arg(root.join("benches/broker/pairs.c")).arg("-o").arg(&executable);
        command.arg("-L").arg(&directory).arg("-llockd");
        command.arg(format!("-Wl,-rpath,{}", directory.display()));
        checked(command.output().unwrap());
        Self(executable)
    }

    /// The nanoseconds that an acquire and a release take in the program.
    pub(crate) fn pairs(&self) -> f64 {
        // Cargo sets this path to libraries that it has built. It would override the program's own
        // path.
        let output = checked(Command::new(&self.0).env_remove("LD_LIBRARY_PATH").output().unwrap());
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }
}

fn checked(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}
