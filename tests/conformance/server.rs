//! Servers of a trial: each can be stopped, paused, killed, and started again at the same address.

use std::cell::{Cell, Ref, RefCell};
use std::path::PathBuf;

use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::support::server::{Launch, Server as Process};
use crate::support::socket::Endpoint;
use crate::transcript::Transcript;
use crate::verdict::Verdict;
use crate::witness::Witness;

/// What a server is started with. The dead-peer timeout is the shortest that is allowed: calls to a
/// server that hangs are bounded by it.
const OPTIONS: [&str; 4] = ["--allow-kick", "--shared-excludes", "--dead-peer-timeout", "12"];

pub(crate) struct Server {
    /// An address of this machine that no other cell uses, so that no one else takes the ports while
    /// the server is down.
    host: String,
    /// The directory of its Unix sockets.
    sockets: PathBuf,
    options: Vec<String>,
    /// The ports of `message`, `lockd` and `glockd`; 0 until the server has run.
    ports: Cell<[u16; 3]>,
    /// The port of `message+tls`, if the server has a certificate.
    tls_port: Cell<u16>,
    process: RefCell<Option<Process>>,
    is_paused: Cell<bool>,
    transcript: Transcript,
}

const PROTOCOLS: [&str; 3] = ["message", "lockd", "glockd"];

/// The scheme of the URLs of a protocol.
pub(crate) fn scheme(protocol: &str) -> &str {
    if protocol == "message" { "tcp" } else { protocol }
}

impl Server {
    pub(crate) fn start(host: &str, sockets: PathBuf, options: &[&str], transcript: &Transcript) -> Self {
        std::fs::create_dir_all(&sockets).expect("a directory");
        let server = Self {
            host: host.to_owned(),
            sockets,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ports: Cell::default(),
            tls_port: Cell::default(),
            process: RefCell::default(),
            is_paused: Cell::new(false),
            transcript: transcript.clone(),
        };
        server.start_again();
        server
    }

    /// Starts it at the same addresses as before.
    pub(crate) fn start_again(&self) {
        let mut launch = Launch::new().args(["serve"]);
        for (protocol, port) in PROTOCOLS.into_iter().zip(self.ports.get()) {
            launch = launch.listen(&format!("{protocol}://{}:{port}", self.host));
        }
        for protocol in PROTOCOLS {
            launch = launch.listen(&format!("{protocol}+unix:{}", self.socket(protocol).display()));
        }
        launch = launch.args(OPTIONS);
        if self.has_option("--tls-cert") {
            launch = launch.listen(&format!("message+tls://{}:{}", self.host, self.tls_port.get()));
        }
        let process = launch.args(self.options.iter().map(String::as_str)).start();
        let port = |protocol| match process.tcp_endpoint(protocol) {
            Endpoint::Tcp(address) => address.port(),
            Endpoint::Unix(_) => unreachable!("it was asked for TCP"),
        };
        self.ports.set(PROTOCOLS.map(port));
        if self.has_option("--tls-cert") {
            self.tls_port.set(port("message+tls"));
        }
        self.transcript.add(format!("a server runs at {}", self.address("message")));
        *self.process.borrow_mut() = Some(process);
    }

    fn process(&self) -> Ref<'_, Process> {
        Ref::map(self.process.borrow(), |process| process.as_ref().expect("the server runs"))
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.borrow().is_some() && !self.is_paused.get()
    }

    /// `HOST:PORT` of a protocol.
    pub(crate) fn address(&self, protocol: &str) -> String {
        let port = PROTOCOLS.iter().position(|name| *name == protocol).expect("a protocol");
        format!("{}:{}", self.host, self.ports.get()[port])
    }

    /// The URL for a driver whose client speaks `protocol`.
    pub(crate) fn url(&self, protocol: &str) -> String {
        format!("{}://{}", scheme(protocol), self.address(protocol))
    }

    pub(crate) fn socket(&self, protocol: &str) -> PathBuf {
        self.sockets.join(format!("{protocol}.sock"))
    }

    pub(crate) fn unix_url(&self, protocol: &str) -> String {
        format!("unix:{}", self.socket(protocol).display())
    }

    /// `HOST:PORT` of `message` in TLS.
    pub(crate) fn tls_address(&self) -> String {
        format!("{}:{}", self.host, self.tls_port.get())
    }

    pub(crate) fn tls_url(&self) -> String {
        format!("tls://{}", self.tls_address())
    }

    fn has_option(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }

    pub(crate) fn witness(&self) -> Verdict<Witness> {
        // At the Unix socket, no one needs the secret. Elsewhere, witnesses have addresses.
        let endpoint = match self.has_option("--auth-token-file") {
            true => self.process().unix_endpoint("message"),
            false => self.process().tcp_endpoint("message"),
        };
        Witness::connect(&endpoint, &self.transcript)
    }

    /// Stops all its threads; they are stopped when this returns.
    pub(crate) fn pause(&self) {
        self.transcript.add("the server is stopped (SIGSTOP)");
        self.process().signal(Signal::STOP);
        self.is_paused.set(true);
        let pid = i32::try_from(self.process().pid()).ok().and_then(Pid::from_raw).expect("a process");
        waitpid(Some(pid), WaitOptions::UNTRACED).expect("the server is a child");
    }

    pub(crate) fn resume(&self) {
        self.transcript.add("the server goes on (SIGCONT)");
        self.process().signal(Signal::CONT);
        self.is_paused.set(false);
    }

    /// Ends it by `signal` and waits until it has ended.
    pub(crate) fn end(&self, signal: Signal) {
        self.transcript.add(format!("the server is sent {signal:?}"));
        let process = self.process.borrow_mut().take();
        let mut process = process.expect("the server runs");
        process.signal(signal);
        process.wait();
        self.is_paused.set(false);
        self.note_log(&process);
    }

    /// Copies the end of the log into the transcript.
    fn note_log(&self, process: &Process) {
        let log = process.log();
        for line in &log[log.len().saturating_sub(20)..] {
            self.transcript.add(format!("        server: {line}"));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = self.process.get_mut().take() {
            self.note_log(&process);
        }
    }
}
