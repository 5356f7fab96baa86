//! Plants a fault: applies a patch to a copy of the sources, and builds what is asked for from the
//! copy. For the faults of clients here, and for those of the server in `tests/history`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a build needs; below the root of the repository.
const OF_RUST: &[&str] =
    &["Cargo.toml", "Cargo.lock", "build.rs", "src", "include", "tests", "benches", "examples"];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Copies these parts of the repository, and applies the patch to the copy.
pub(crate) fn plant(patch: &Path, to: &Path, parts: &[&str]) -> Result<(), String> {
    for part in parts {
        copy(&root().join(part), &to.join(part)).map_err(|error| format!("{part}: {error}"))?;
    }
    apply(patch, to, &[])
}

/// Applies a patch to the sources in this directory; with `--dry-run`, only tries.
pub(crate) fn apply(patch: &Path, to: &Path, options: &[&str]) -> Result<(), String> {
    // No fuzz: a patch that fits only roughly may plant another fault than it says.
    let mut command = Command::new("patch");
    command.args(["-p1", "--batch", "--forward", "--fuzz=0"]).args(options);
    command.arg("-i").arg(patch).current_dir(to);
    must_succeed(&mut command).map_err(|problem| {
        let patch = patch.display();
        format!("THE PATCH NO LONGER APPLIES: write {patch} anew against these sources\n{problem}")
    })
}

/// Builds the target that `what` names with the fault. Returns the directory of what was built. One
/// fault at a time: all are built in one directory.
pub(crate) fn build(patch: &Path, what: &[&str]) -> Result<PathBuf, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
    let tree = directory.join("tree");
    // What an earlier fault has changed must not stay, and what has been built may.
    let _ = fs::remove_dir_all(&tree);
    plant(patch, &tree, OF_RUST)?;
    let target = directory.join("target");
    must_succeed(&mut cargo_build(&tree, &target, what))?;
    Ok(target.join("debug"))
}

/// Builds the target that `what` names, from the sources in `tree`.
pub(crate) fn cargo_build(tree: &Path, target: &Path, what: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked"]).args(what).current_dir(tree).env("CARGO_TARGET_DIR", target);
    cargo
}

pub(crate) fn must_succeed(command: &mut Command) -> Result<(), String> {
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let said = || String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}\n{}", said())) }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
