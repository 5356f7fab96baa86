//! The file of the program that runs: where the next version of it will be, whether it is still the
//! one that has been tried, and execve(2).

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::cli::upgrade::descriptors::{close_at_exec, keep_at_exec};

/// The variable with the number of the descriptor of the state that an image hands over to the next
/// one.
pub(crate) const STATE_VARIABLE: &str = "LOCKD_UPGRADE_STATE";
/// What is in the environment of this process and not for the next version: sockets of systemd are
/// handed over in the state, and a program that took them as at a start would serve them twice.
pub(crate) const NOT_HANDED_ON: [&str; 5] =
    [STATE_VARIABLE, "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The last argument with which the next version only tries the state on its standard input. It is
/// no option for people, and in no help.
pub(crate) const REHEARSAL_OPTION: &str = "--rehearse-upgrade";
/// The last argument with which the next version takes over. A version that knows no upgrade ends
/// at once because of it, instead of serving as if it had been started.
const TAKE_OVER_OPTION: &str = "--take-over-upgrade";

/// Whether this process is only to try the state on its standard input.
pub(crate) fn is_rehearsal() -> bool {
    added_option() == Some(REHEARSAL_OPTION)
}

/// Whether this process is to take over the state that the environment names.
pub(crate) fn takes_over() -> bool {
    added_option() == Some(TAKE_OVER_OPTION)
}

/// The argument that a version before this one has added.
fn added_option() -> Option<&'static str> {
    // The last argument of another command may be anything.
    let serves = |first: OsString| first == "serve" || first.as_bytes().starts_with(b"-");
    let last = std::env::args_os().nth(1).is_some_and(serves).then(|| std::env::args_os().last())??;
    [REHEARSAL_OPTION, TAKE_OVER_OPTION].into_iter().find(|option| last == *option)
}

/// The arguments with which the server was started, the name of the program included.
pub(crate) fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if added_option().is_some() {
        arguments.pop();
    }
    arguments
}

/// The program that is at a path now: what is tried is what is executed, whatever is at the path
/// then.
#[derive(Debug)]
pub(crate) struct ProgramFile {
    file: OwnedFd,
    path: PathBuf,
    /// Its interpreter opens it by its path.
    is_script: bool,
    stamp: ProgramStamp,
}

impl ProgramFile {
    /// # Errors
    /// If there is no such file. The text names it.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let open = || -> io::Result<Self> {
            let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let by_number = by_number(&file);
            let stamp = ProgramStamp::of(&by_number)?;
            // A program need not be readable; a script must be.
            let mut begin = [0; 2];
            let read = File::open(&by_number).and_then(|mut file| file.read_exact(&mut begin));
            Ok(Self { file, path: path.to_owned(), is_script: read.is_ok() && begin == *b"#!", stamp })
        };
        open().map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The path to execute in this process or in a child of it.
    pub(crate) fn executable(&self) -> PathBuf {
        if self.is_script { self.path.clone() } else { by_number(&self.file) }
    }

    /// Where it was found.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still at its path, and as it was.
    pub(crate) fn is_current(&self) -> bool {
        ProgramStamp::of(&self.path).ok() == Some(self.stamp)
    }
}

fn by_number(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProgramStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl ProgramStamp {
    /// # Errors
    /// If there is no such file.
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

/// The path by which this process was started. To be called at the start: once the file has been
/// replaced, it can no longer be checked that the path is the right one.
pub(crate) fn path() -> PathBuf {
    // This one may lead over symbolic links, which then lead to the next version.
    let started = Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
    let started = std::path::absolute(started).unwrap_or_else(|_| started.to_owned());
    let own = ProgramStamp::of(Path::new("/proc/self/exe")).ok();
    if own.is_some() && own == ProgramStamp::of(&started).ok() {
        return started;
    }
    // Where /proc is missing, there is no other path. An upgrade may fail then.
    std::env::current_exe().unwrap_or(started)
}

/// Names this process after the program at `path`, as execve(2) would have done: it was executed by
/// the number of a descriptor, which the kernel has taken for its name.
pub(crate) fn set_process_name(path: &Path) {
    let name = path.file_name().unwrap_or_default();
    if let Ok(name) = CString::new(name.as_bytes()) {
        // It fails for no text.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Replaces this process by the program, with the same arguments and one more, and the same
/// environment. That finds the state, and `descriptors` open. Returns only if it fails: then
/// everything is as before.
pub(crate) fn execute(program: &ProgramFile, state: &OwnedFd, descriptors: &[RawFd]) -> io::Error {
    let descriptors = [descriptors, &[state.as_raw_fd()]].concat();
    let execute = || -> io::Result<Infallible> {
        keep_at_exec(&descriptors)?;
        let text = |text: OsString| Ok::<_, io::Error>(CString::new(text.into_vec())?);
        let path = text(program.executable().into_os_string())?;
        let arguments = arguments().into_iter().chain([TAKE_OVER_OPTION.into()]);
        let arguments = arguments.map(text).collect::<io::Result<Vec<_>>>()?;
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            if !NOT_HANDED_ON.iter().any(|other| name == *other) {
                let mut variable = name;
                variable.push("=");
                variable.push(value);
                environment.push(text(variable)?);
            }
        }
        environment.push(CString::new(format!("{STATE_VARIABLE}={}", state.as_raw_fd()))?);
        Ok(nix::unistd::execve(&path, &arguments, &environment)?)
    };
    match execute() {
        Err(error) => {
            close_at_exec(&descriptors);
            error
        }
        Ok(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_executed_is_what_was_opened_although_its_path_has_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::copy("/bin/echo", &path).unwrap();
        let program = ProgramFile::open(&path).unwrap();
        assert!(program.is_current());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/bin/false", &path).unwrap();
        assert!(!program.is_current());
        let output = Command::new(program.executable()).arg0("echo").arg("the first").output().unwrap();
        assert_eq!(output.stdout, b"the first\n");
    }

    #[test]
    fn a_script_is_executed_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert_eq!(ProgramFile::open(&path).unwrap().executable(), path);
        assert!(
            ProgramFile::open(&directory.path().join("none")).unwrap_err().contains("none: No such file")
        );
    }
}
