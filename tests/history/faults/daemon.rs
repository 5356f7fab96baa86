//! The real server as a process that is killed and started again at the same addresses, with the
//! times of its lives. It ends when it is dropped, and with the process that started it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lockd::client::MessageClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::child::{Orders, start};
use super::log::now;
use super::upgrades::Upgrades;
use super::wire::{Address, Protocol};
use crate::history::{NEVER, Nanos, SECOND, ServerLife};
use crate::random::Random;

/// The least value that the server accepts, so that the grace after an unclean end is as short as
/// possible.
const DEAD_PEER_SECONDS: u64 = 12;

/// What the server logs if two sessions claim a lock that only one of them can have had.
pub(super) const CONFLICT: &str = " others have claimed before";

/// How long the server may take to answer a request that waits for nothing.
const ANSWERS: Duration = Duration::from_secs(60);

/// A server that can be started again.
pub(crate) struct Daemon {
    arguments: Vec<String>,
    endpoints: Vec<(Protocol, Address)>,
    keeps_state: bool,
    /// Whether it has clients whose sessions can resume at its next run.
    has_resumable: bool,
    state: PathBuf,
    program: PathBuf,
    dead_peer_seconds: u64,
    /// How often a run has logged that two sessions claim the same lock.
    conflicts: Arc<AtomicUsize>,
    /// Whether the next run has a new state directory.
    is_new: bool,
    /// How long the server must, and how long it may, grant nothing when it is started again.
    grace_limits: (Nanos, Nanos),
    process: Option<Child>,
    pub(crate) lives: Vec<ServerLife>,
    pub(crate) upgrades: Upgrades,
}

/// Ports outside the range from which the kernel chooses ports for outgoing connections. Otherwise
/// a client could be given the port of a server that is down at the moment, and keep it from coming
/// back.
pub(super) fn free_ports(count: usize, random: &mut Random) -> Vec<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let lneeds_gracet: u64 = range.split_whitespace().next().unwrap().parse().unwrap();
    let mut listeners = Vec::new();
    while listeners.len() < count {
        let port = u16::try_from(random.between(2000, lneeds_gracet - 1)).unwrap();
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Daemon {
    /// Starts a server for all protocols over TCP and Unix sockets, in this directory.
    pub(crate) fn start(directory: &Path, options: &[&str], keeps_state: bool) -> Self {
        let mut daemon = Self::new(directory, options, keeps_state);
        daemon.start_again();
        daemon
    }

    /// Such a server, which is not started yet.
    pub(crate) fn new(directory: &Path, options: &[&str], keeps_state: bool) -> Self {
        // Not from the seed of the run, so that two runs with the same seed can go on at the same
        // time.
        let mut random = Random::new(now() ^ u64::from(std::process::id()));
        let ports = free_ports(3, &mut random);
        let protocols =
            [(Protocol::Lockd, "lockd"), (Protocol::Glockd, "glockd"), (Protocol::Message, "message")];
        let (mut arguments, mut endpoints) = (vec!["--log-level=info".to_owned()], Vec::new());
        for ((protocol, scheme), port) in protocols.into_iter().zip(ports) {
            let path: PathBuf = directory.join(format!("{scheme}.sock"));
            arguments.push(format!("--listen={scheme}://127.0.0.1:{port}"));
            arguments.push(format!("--listen={scheme}+unix:{}", path.display()));
            endpoints.push((protocol, format!("127.0.0.1:{port}")));
            endpoints.push((protocol, path.display().to_string()));
        }
        let library: Vec<_> = endpoints
            .iter()
            .filter(|(protocol, _)| *protocol == Protocol::Message)
            .map(|(_, address)| (Protocol::Library, address.clone()))
            .collect();
        endpoints.extend(library);
        let (control, state) = (directory.join("control"), directory.join("state"));
        arguments.push(format!("--control={}", control.display()));
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        if keeps_state {
            arguments.push(format!("--state-dir={}", state.display()));
            arguments.push("--first-start".to_owned());
        }
        Self {
            arguments,
            endpoints,
            keeps_state,
            has_resumable: false,
            state,
            program: PathBuf::from(env!("CARGO_BIN_EXE_lockd")),
            dead_peer_seconds: DEAD_PEER_SECONDS,
            conflicts: Arc::default(),
            is_new: false,
            grace_limits: (0, 0),
            process: None,
            lives: Vec::new(),
            upgrades: Upgrades::at(control),
        }
    }

    /// The next runs are of this program.
    pub(crate) fn set_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// The next runs have this dead-peer timeout, in seconds.
    pub(crate) fn set_dead_peer_timeout(&mut self, seconds: u64) {
        self.dead_peer_seconds = seconds;
    }

    /// It has clients whose sessions can resume.
    pub(crate) fn has_resumable(&mut self) {
        self.has_resumable = true;
    }

    /// The server, which has ended, loses its state directory.
    pub(crate) fn forget(&mut self) {
        std::fs::remove_dir_all(&self.state).unwrap();
        self.arguments.retain(|argument| argument != "--first-start");
        self.is_new = true;
        let all = self.dead_peer_seconds * SECOND;
        self.grace_limits = (all, all);
    }

    pub(crate) fn conflicts(&self) -> usize {
        self.conflicts.load(Ordering::Relaxed)
    }

    /// Stops the process of the server, or continues it.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            kill_process(Pid::from_child(process), signal).unwrap();
        }
    }

    /// The address of `message` over TCP.
    pub(crate) fn address(&self) -> &str {
        let is_message = |endpoint: &&(Protocol, Address)| endpoint.0 == Protocol::Message;
        let (_, address) = self.endpoints.iter().find(is_message).expect("the server speaks all protocols");
        address
    }

    pub(crate) fn endpoints(&self) -> &[(Protocol, Address)] {
        &self.endpoints
    }

    /// Starts the server and waits until it listens on all its addresses.
    pub(crate) fn start_again(&mut self) {
        let started = now();
        let mut arguments = self.arguments.clone();
        arguments.push(format!("--dead-peer-timeout={}", self.dead_peer_seconds));
        let mut process = start(&Orders::Serve(self.program.clone(), arguments), Stdio::piped());
        let lines = lines_of(&mut process, &self.conflicts);
        self.process = Some(process);
        let (mut listeners, mut said) = (0, Vec::new());
        while listeners < 6 {
            match lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => {
                    listeners += usize::from(line.contains("listening on "));
                    said.push(line);
                }
                Err(error) => panic!("the server does not listen: {error}\n{}", said.join("\n")),
            }
        }
        let ((grace, grace_max), ready) = (self.grace_limits, now());
        let (stopped, ended, is_remembered) = (NEVER, NEVER, false);
        let is_new = std::mem::take(&mut self.is_new);
        self.lives.push(ServerLife {
            started,
            ready,
            stopped,
            ended,
            grace,
            grace_max,
            is_remembered,
            is_new,
        });
    }

    /// Asks the server to upgrade itself, and does not wait for it.
    pub(crate) fn begin_upgrade(&mut self) {
        self.upgrades.begin();
    }

    /// Waits until the last upgrade is over.
    pub(crate) fn finish_upgrade(&mut self) {
        self.upgrades.finish();
    }

    /// Has the server hang up on one of the named sessions that hold a lock. Returns the session's
    /// name, and a time before that.
    pub(crate) fn kick_holder(&self, random: &mut Random) -> Option<(String, Nanos)> {
        let locks = self.ask("list", &json!({}))["locks"].take();
        let holders = locks.as_array().expect("a list of locks").iter().flat_map(|lock| {
            lock["holders"].as_array().expect("a list of holders").iter().filter_map(|it| it["name"].as_str())
        });
        let names: Vec<&str> = holders.collect();
        let chosen = names.get(usize::try_from(random.below(names.len().max(1) as u64)).unwrap())?;
        let since = now();
        // The session may have ended by itself in the meantime.
        self.kick(chosen).then(|| ((*chosen).to_owned(), since))
    }

    /// Has the server hang up on the session with this name. False if there is none.
    pub(crate) fn kick(&self, name: &str) -> bool {
        self.ask("kick", &json!({"name": name}))["status"] == "ok"
    }

    /// Asks the server, as an operator would.
    pub(crate) fn ask(&self, command: &str, parameters: &Value) -> Value {
        let operator = MessageClient::connect(&format!("tcp://{}", self.address()), ANSWERS).unwrap();
        let answer = operator.rpc(command, parameters, Some(ANSWERS)).unwrap();
        serde_json::from_str(answer.get()).unwrap()
    }

    /// Kills the server, or tells it to stop, and waits until it has ended.
    pub(crate) fn end(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else { return };
        let life = self.lives.last_mut().expect("the server has a life");
        life.stopped = now();
        kill_process(Pid::from_child(&process), signal).unwrap();
        let deadline: Nanos = now() + 20 * SECOND;
        let status = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break status;
            }
            if now() > deadline {
                let _ = process.kill();
                let _ = process.wait();
                panic!("the server did not end after {signal:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        life.ended = now();
        self.upgrades.abandon();
        let is_clean = signal == Signal::TERM;
        assert!(!is_clean || status.success(), "the server stopped with {status}");
        if self.keeps_state {
            let all = self.dead_peer_seconds * SECOND;
            life.is_remembered = !is_clean;
            // A server that is stopped before its own grace is over leaves the grace to the next
            // one.
            let needs_grace =
                |begun: Nanos, length: Nanos| !is_clean || length > 0 && life.stopped < begun + length;
            self.grace_limits = (
                if needs_grace(life.started, life.grace) { all } else { 0 },
                // After a clean stop it waits for those that come back.
                if self.has_resumable || needs_grace(life.ready + SECOND, life.grace_max) { all } else { 0 },
            );
        }
    }

    /// Whether the server is running, as it should be.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }
}

/// The lines that the server logs. A separate thread reads them until the server ends, so that the
/// server never waits for its reader.
fn lines_of(process: &mut Child, conflicts: &Arc<AtomicUsize>) -> Receiver<String> {
    let stderr = process.stderr.take().expect("a pipe");
    let (send, receive) = channel();
    let conflicts = conflicts.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains(CONFLICT) {
                conflicts.fetch_add(1, Ordering::Relaxed);
            }
            // The receiver is gone once the server has started.
            let _ = send.send(line);
        }
    });
    receive
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both calls fail only if the server has already ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
