//! A service manager: starts the server as systemd would, and receives its notifications.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::environment::without_options;
use crate::support::{DEADLINE, end_of, eventually};

/// The manager asks for four signs of life a second, so the server sends eight.
pub(crate) const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "250000");

/// Replaces itself with the server, which gets descriptors 0 and 1 of this process as 3 and 4.
const ACTIVATE: &str = r#"exec 3<&0 4>&1 </dev/null >/dev/null
[ "$LISTEN_FDS" = 2 ] || exec 4>&-
LISTEN_PID=$$ exec "$0" "$@""#;

pub(crate) struct Manager {
    pub(crate) directory: TempDir,
    socket: UnixDatagram,
}

/// A server; when this is dropped, it is killed and waited for.
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { directory, socket }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn prepare(&self, mut command: Command) -> Command {
        without_options(&mut command);
        command.env("NOTIFY_SOCKET", self.path("notify"));
        command.stderr(File::create(self.path("log")).unwrap());
        command
    }

    /// Starts a server with these arguments and additional environment variables.
    pub(crate) fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        let mut command = self.prepare(Command::new(env!("CARGO_BIN_EXE_lockd")));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.args(arguments).envs(environment.iter().copied());
        Service { child: command.spawn().unwrap(), log: self.path("log") }
    }

    /// Starts a server with one or two sockets under these names.
    pub(crate) fn activate(&self, sockets: Vec<OwnedFd>, names: &str, arguments: &[&str]) -> Service {
        let mut command = self.prepare(Command::new("sh"));
        command.arg("-c").arg(ACTIVATE).arg(env!("CARGO_BIN_EXE_lockd")).args(arguments);
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
        let mut sockets = sockets.into_iter();
        command.stdin(sockets.next().unwrap());
        command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
        Service { child: command.spawn().unwrap(), log: self.path("log") }
    }

    /// Fills the notification socket, so that it takes nothing more, as if the manager had stopped
    /// reading.
    pub(crate) fn stop_hearing(&self) {
        // Each sender also has a limit of its own: if a new sender cannot send, no sender can.
        loop {
            let sender = UnixDatagram::unbound().unwrap();
            sender.set_nonblocking(true).unwrap();
            let send = || match sender.send_to(b"FILLER=1\n", self.path("notify")) {
                Ok(_) => true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => panic!("cannot fill the socket: {error}"),
            };
            if !send() {
                return;
            }
            while send() {}
        }
    }

    /// The lines of the server's next notification.
    #[track_caller]
    pub(crate) fn hear(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = loop {
            match self.socket.recv(&mut message) {
                // The kernel does not restart a receive with a time limit.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.expect("the server says something"),
            }
        };
        String::from_utf8(message[..length].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits for a notification that contains this line, and returns all of its lines.
    #[track_caller]
    pub(crate) fn await_line(&self, line: &str) -> Vec<String> {
        let end = std::time::Instant::now() + DEADLINE;
        loop {
            let heard = self.hear();
            if heard.iter().any(|heard| heard == line) {
                return heard;
            }
            assert!(std::time::Instant::now() < end, "no {line}");
        }
    }

    /// Asserts that there is no notification. After the server has ended, there never will be one.
    #[track_caller]
    pub(crate) fn assert_silence(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let heard = self.socket.recv(&mut [0; 4096]);
        assert_eq!(heard.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
}

impl Service {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        end_of("the server", &mut self.child)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the server has logged that it listens at exactly these addresses, in this order.
    /// A thread of its own writes the log, so a line may come later than what the server does next.
    pub(crate) fn await_listening(&self, addresses: &[String]) {
        eventually(&format!("it listens at {addresses:?}"), || {
            let log = self.log();
            let listening = log.lines().filter_map(|line| line.split_once("listening on "));
            listening.map(|(_, address)| address).eq(addresses)
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only if the server has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn has(heard: &[String], line: &str) -> bool {
    heard.iter().any(|heard| heard == line)
}

/// Sends a request in one of the text protocols and returns the reply.
pub(crate) fn ask(mut stream: impl Read + Write, line: &str) -> String {
    writeln!(stream, "{line}").unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    reply.trim_end().to_owned()
}

/// The address of a Unix socket that speaks glockd.
pub(crate) fn glockd_at(path: &Path) -> String {
    format!("glockd+unix:{}", path.display())
}
