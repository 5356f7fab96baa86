//! The commands under test, as processes that always end, and shell scripts for them to run.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::server::{Launch, Server, program};
use crate::support::socket::Endpoint;
use crate::support::{end_of, eventually};

/// A server for the commands, and a directory for what they write.
pub(crate) struct Site {
    pub(crate) server: Server,
    directory: TempDir,
}

impl Site {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(options: &[&str]) -> Self {
        let launch = Launch::new().listen("message://127.0.0.1:0").listen("glockd://127.0.0.1:0");
        let server = launch.args(options.iter().copied()).start();
        Self { server, directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        match self.server.tcp_endpoint("message") {
            Endpoint::Tcp(address) => format!("tcp://{address}"),
            Endpoint::Unix(_) => unreachable!("it was asked for over TCP"),
        }
    }

    /// `lockd` with these arguments, without a terminal.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Command {
        let mut command = with_default_signals("setsid");
        command.arg(program()).args(arguments);
        self.prepare(&mut command);
        command
    }

    /// A command in an environment with this server and no other options.
    pub(crate) fn prepare(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LOCKD_") {
                command.env_remove(name);
            }
        }
        command.env("LOCKD_SERVER", self.url()).current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    /// The output of `lockd` with these arguments.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.tool(arguments).output().unwrap()
    }

    /// Its exit status, and its standard output and error as text.
    pub(crate) fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.output(arguments);
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// `lockd run` with these arguments and a script for the shell.
    pub(crate) fn run(&self, arguments: &[&str], script: &str) -> Running {
        let all = [&["run"], arguments, &["--", "sh", "-c", script]].concat();
        Running(self.tool(&all).spawn().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits until the file contains a whole line, and returns the line.
    pub(crate) fn line(&self, name: &str) -> String {
        let (path, mut found) = (self.path(name), String::new());
        eventually(&format!("{name} is written"), || {
            found = std::fs::read_to_string(&path).unwrap_or_default();
            found.ends_with('\n')
        });
        found.trim_end().to_owned()
    }

    /// Waits until a script has written its process id there.
    pub(crate) fn pid(&self, name: &str) -> i32 {
        self.line(name).parse().unwrap()
    }

    pub(crate) fn write(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }
}

/// `program` with the default action for every signal, however the tests were started: a shell that
/// starts them in the background, for one, has SIGINT ignored. env(1) becomes the program, which
/// keeps the process id.
pub(crate) fn with_default_signals(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", program]);
    command
}

/// Shell code that waits until a file exists.
pub(crate) fn until(file: &str) -> String {
    format!("while [ ! -e {file} ]; do sleep 0.01; done")
}

/// A process that is killed and waited for when this is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        end_of("the process", &mut self.0)
    }

    pub(crate) fn code(&mut self) -> i32 {
        self.wait().code().expect("no signal ended it")
    }

    /// All of its standard error until its end.
    pub(crate) fn errors(&mut self) -> String {
        let mut said = Vec::new();
        self.0.stderr.take().unwrap().read_to_end(&mut said).unwrap();
        text(&said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The state of a process as ps(1) has it; `None` if it has ended.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    // A zombie has ended.
    (!matches!(state, 'Z' | 'X')).then_some(state)
}

pub(crate) fn await_end(pid: i32) {
    eventually("the process has ended", || state(pid).is_none());
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> &str {
    OsStr::to_str(path.as_os_str()).unwrap()
}
