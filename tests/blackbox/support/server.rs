//! The real server as a child process: started, watched, and always ended.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use serde_json::json;
use socket2::Socket;
use tempfile::TempDir;

use super::environment::without_options;
use super::frame_client::FrameClient;
use super::line_client::LineClient;
use super::log::Log;
use super::socket::{Endpoint, connect};
use super::{end_of, eventually};

/// The program under test: this build's, or another build of it, for example with a sanitizer.
pub(crate) fn program() -> OsString {
    std::env::var_os("LOCKD_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_lockd").into())
}

/// A server that is about to be started.
pub(crate) struct Launch {
    command: Command,
    listeners: usize,
    directory: TempDir,
}

impl Launch {
    /// A server without any option, and without the environment's options.
    pub(crate) fn new() -> Self {
        Self::of(program())
    }

    /// The same, with the program at another path.
    pub(crate) fn of(program: impl Into<OsString>) -> Self {
        let mut command = Command::new(program.into());
        without_options(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Launch { command, listeners: 0, directory: tempfile::tempdir().unwrap() }
    }

    /// All three protocols over TCP and over Unix sockets.
    pub(crate) fn everywhere() -> Self {
        let mut launch = Launch::new();
        for protocol in ["lockd", "glockd", "message"] {
            let path = launch.path(&format!("{protocol}.sock"));
            launch = launch.listen(&format!("{protocol}://127.0.0.1:0"));
            launch = launch.listen(&format!("{protocol}+unix:{}", path.display()));
        }
        launch
    }

    pub(crate) fn listen(self, address: &str) -> Self {
        self.option("--listen", address).expecting(1)
    }

    pub(crate) fn option(self, name: &str, value: &str) -> Self {
        self.args([name, value])
    }

    pub(crate) fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Announces that `count` more listeners will be logged than were given by [`Self::listen`].
    pub(crate) fn expecting(mut self, count: usize) -> Self {
        self.listeners += count;
        self
    }

    /// A path in this server's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the server and waits until all its listeners are bound.
    pub(crate) fn start(self) -> Server {
        let listeners = self.listeners;
        let mut server = self.spawn();
        eventually("the server listens everywhere", || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended at once, with {status}");
            }
            server.endpoints = server.log().iter().filter_map(|line| reported_endpoint(line)).collect();
            server.endpoints.len() >= listeners
        });
        server
    }

    /// Starts a server that is expected to end by itself, and returns its status and its log.
    pub(crate) fn run(self) -> (ExitStatus, String) {
        let mut server = self.spawn();
        let status = server.wait();
        (status, server.log().join("\n"))
    }

    fn spawn(mut self) -> Server {
        let mut child = self.command.spawn().expect("the lockd binary runs");
        let log = Log::read(child.stderr.take().unwrap());
        Server {
            child,
            log: Some(log),
            last_log: Vec::new(),
            endpoints: Vec::new(),
            directory: self.directory,
        }
    }
}

fn reported_endpoint(line: &str) -> Option<(String, Endpoint)> {
    let (_, listener) = line.split_once("listening on ")?;
    let listener = listener.split_whitespace().next()?;
    if let Some((protocol, path)) = listener.split_once("+unix:") {
        return Some((protocol.to_owned(), Endpoint::Unix(path.into())));
    }
    let (protocol, address) = listener.split_once("://")?;
    Some((protocol.to_owned(), Endpoint::Tcp(address.parse().ok()?)))
}

/// A running server. It is killed and waited for when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// Open until the server has ended.
    log: Option<Log>,
    /// All that it wrote, once it has ended.
    last_log: Vec<String>,
    /// The protocol of each listener and where it can be reached, in the order of the log.
    endpoints: Vec<(String, Endpoint)>,
    directory: TempDir,
}

impl Server {
    /// All three protocols over TCP and over Unix sockets, without further options.
    pub(crate) fn start() -> Self {
        Launch::everywhere().start()
    }

    /// The same with options.
    pub(crate) fn with(options: &[&str]) -> Self {
        Launch::everywhere().args(options.iter().copied()).start()
    }

    pub(crate) fn endpoints(&self) -> &[(String, Endpoint)] {
        &self.endpoints
    }

    /// Where `protocol` is served over TCP.
    pub(crate) fn tcp_endpoint(&self, protocol: &str) -> Endpoint {
        self.endpoint(protocol, |endpoint| matches!(endpoint, Endpoint::Tcp(_)))
    }

    /// Where `protocol` is served over a Unix socket.
    pub(crate) fn unix_endpoint(&self, protocol: &str) -> Endpoint {
        self.endpoint(protocol, |endpoint| matches!(endpoint, Endpoint::Unix(_)))
    }

    fn endpoint(&self, protocol: &str, wanted: impl Fn(&Endpoint) -> bool) -> Endpoint {
        let mut of_protocol = self.endpoints.iter().filter(|(served, _)| served == protocol);
        let found = of_protocol.find(|(_, endpoint)| wanted(endpoint));
        found.map(|(_, endpoint)| endpoint.clone()).expect("such a listener")
    }

    pub(crate) fn tcp(&self, protocol: &str) -> Socket {
        connect(&self.tcp_endpoint(protocol))
    }

    pub(crate) fn unix(&self, protocol: &str) -> Socket {
        connect(&self.unix_endpoint(protocol))
    }

    pub(crate) fn lockd(&self) -> LineClient {
        LineClient::new(self.tcp("lockd"))
    }

    pub(crate) fn glockd(&self) -> LineClient {
        LineClient::new(self.tcp("glockd"))
    }

    pub(crate) fn message(&self) -> FrameClient {
        FrameClient::new(self.tcp("message"))
    }

    /// Waits until exactly `count` requests wait for `name`.
    pub(crate) fn await_waiters(&self, name: &str, count: usize) {
        let mut observer = self.message();
        eventually(&format!("{count} waiting for {name:?}"), || {
            observer.call("inspect", json!({"lockName": name}))["waiters"] == json!(count)
        });
    }

    /// Waits until `name` has no holder.
    pub(crate) fn await_free(&self, name: &str) {
        let mut observer = self.message();
        eventually(&format!("{name:?} is free"), || {
            observer.call("inspect", json!({"lockName": name}))["holders"] == json!(0)
        });
    }

    /// Waits until no lock is held.
    pub(crate) fn await_no_locks(&self) {
        let mut observer = self.glockd();
        eventually("all locks are free", || {
            let counters = observer.ask_all("q");
            ["locks: 0\n", "shared_locks: 0\n"]
                .iter()
                .all(|line| counters.iter().any(|counter| counter == line))
        });
    }

    /// Limits how many descriptors the server may have from now on.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let limit = Rlimit { current: Some(limit), maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit).unwrap();
    }

    /// How many descriptors the server has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The processor time the server has used so far, in ticks of a hundredth of a second.
    pub(crate) fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// The scheduling policy (sched(7)) of each of the server's threads with this name.
    pub(crate) fn policies(&self, thread: &str) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // A thread that has just ended is skipped.
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let of_name = |stat: String| {
            let (name, fields) = stat.split_once(") ").unwrap();
            let policy = fields.split(' ').nth(38).unwrap().parse().unwrap();
            name.ends_with(&format!("({thread}")).then_some(policy)
        };
        stats.filter_map(of_name).collect()
    }

    /// The server's own directory, which is removed with it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let ended = end_of("the server", &mut self.child);
        if let Some(log) = self.log.take() {
            self.last_log = log.read_to_end();
        }
        ended
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.as_ref().map_or_else(|| self.last_log.clone(), Log::lines)
    }

    /// From now on the server's log is not read, and nothing more of it fits into the pipe.
    pub(crate) fn leave_log_unread(&self) {
        self.log.as_ref().expect("a server that runs").stop_reading();
    }

    /// Reads the log again.
    pub(crate) fn read_log_again(&self) {
        self.log.as_ref().expect("a server that runs").go_on_reading();
    }

    /// The server's resident memory.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "a failed test should show what the server said")]
    fn drop(&mut self) {
        // Both fail only if the server has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let last = log.len().saturating_sub(30);
            eprintln!("the end of the server's log:\n{}", log[last..].join("\n"));
        }
    }
}

/// Lets this process, and the servers it starts, have as many descriptors as the system allows.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}
