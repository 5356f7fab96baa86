//! The servers that are measured, each as a child process on a free port of this machine: lockd,
//! its echo and baton servers, and Redis, memcached and PostgreSQL where they are installed. A server is
//! stopped when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Server {
    /// Its name in tables.
    pub(crate) name: String,
    /// Its address for `lockd bench --server`.
    pub(crate) address: String,
    /// Further addresses of the same process, with other protocols.
    others: Vec<String>,
    child: Child,
    _log: Option<BufReader<ChildStderr>>,
    _directory: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.pid().cast_signed()) {
            // SIGTERM stops all of them cleanly. Processes in the background may ignore SIGINT.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// The program that is measured.
pub(crate) const LOCKD: &str = env!("CARGO_BIN_EXE_lockd");

impl Server {
    /// lockd, speaking `glockd` and `message`.
    pub(crate) fn lockd(options: &[&str]) -> Self {
        let mut command = Command::new(LOCKD);
        clear_environment(&mut command);
        command.args(["bench-serve", "--listen=glockd://127.0.0.1:0", "--listen=message://127.0.0.1:0"]);
        command.args(["--connections-max=100000", "--locks-max=100000000"]);
        command.args(["--locks-per-connection-max=100000000"]).args(options);
        Self::start_own("lockd", command, 2)
    }

    /// The echo server.
    pub(crate) fn echo() -> Self {
        Self::start_ceiling("echo", "bench-echo")
    }

    /// The server that passes a baton on.
    pub(crate) fn baton() -> Self {
        Self::start_ceiling("baton", "bench-baton")
    }

    fn start_ceiling(name: &str, command_name: &str) -> Self {
        let mut command = Command::new(LOCKD);
        clear_environment(&mut command);
        command.arg(command_name);
        Self::start_own(name, command, 1)
    }

    /// Starts a program that logs its addresses.
    fn start_own(name: &str, mut command: Command, listeners: usize) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut addresses = Vec::new();
        while addresses.len() < listeners {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "{name} does not start");
            addresses.extend(line.split_once("listening on ").map(|(_, address)| address.trim().to_owned()));
        }
        let address = addresses.remove(0);
        Self { name: name.to_owned(), address, others: addresses, child, _log: Some(log), _directory: None }
    }

    /// Redis without persistence; `None` where it is not installed.
    pub(crate) fn redis() -> Option<Self> {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.args(["--appendonly", "no", "--maxclients", "20000"]);
        Self::start_other("Redis", "redis", port, command, None)
    }

    /// memcached; `None` where it is not installed.
    pub(crate) fn memcached() -> Option<Self> {
        let port = free_port();
        let mut command = Command::new("memcached");
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-c", "20000", "-u", "nobody"]);
        Self::start_other("memcached", "memcached", port, command, None)
    }

    /// PostgreSQL with a new cluster; `None` where it is not installed.
    pub(crate) fn postgres() -> Option<Self> {
        let programs = newest_postgres()?;
        let directory = tempfile::tempdir().unwrap();
        // PostgreSQL refuses to run as root. Then it runs as the user that its package has created.
        let as_user = |program: &str| {
            let program = programs.join(program);
            if !geteuid().is_root() {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
            command
        };
        if geteuid().is_root() {
            Command::new("chown").arg("postgres").arg(directory.path()).status().ok()?;
        }
        let data = directory.path().join("data");
        let mut init = as_user("initdb");
        init.args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"]).arg(&data);
        init.stdout(Stdio::null()).stderr(Stdio::null()).status().ok().filter(|status| status.success())?;
        let port = free_port();
        let mut command = as_user("postgres");
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "max_connections=300"]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        Self::start_other("PostgreSQL", "postgres", port, command, Some(directory))
    }

    /// Starts a program, and waits until it listens on `port`.
    fn start_other(
        name: &str,
        protocol: &str,
        port: u16,
        mut command: Command,
        directory: Option<TempDir>,
    ) -> Option<Self> {
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(child) = started else {
            eprintln!("{name} is not installed: it is left out");
            return None;
        };
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self {
            name: name.to_owned(),
            address: format!("{protocol}://127.0.0.1:{port}"),
            others: Vec::new(),
            child,
            _log: None,
            _directory: directory,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address for one of its protocols.
    pub(crate) fn address_for(&self, protocol: &str) -> &str {
        let mut addresses = self.others.iter().chain([&self.address]);
        addresses.find(|address| address.starts_with(protocol)).expect("the server speaks this protocol")
    }
}

/// Clears the environment, so that no variable configures lockd, and lets lockd end with this
/// process.
fn clear_environment(command: &mut Command) {
    command.env_clear().env("LOCKD_BENCH_PARENT", std::process::id().to_string());
}

/// The directory of the newest PostgreSQL's programs, as Debian installs it.
fn newest_postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let programs =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("postgres").exists());
    programs.max()
}

/// A port that no process listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
