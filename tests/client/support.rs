//! Servers in this process, and helpers that many tests use.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lockd::broker::{AcquireError, Broker, Inspection, Limits, LockName, Mode};
use lockd::client;
use lockd::server::{Config, Server, Service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::environment::without_options;

/// How long anything may take before a test fails. A test that passes never waits for it to elapse.
pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const NOW: Option<Duration> = Some(Duration::ZERO);

pub(crate) fn serve_with(service: Service) -> (Server, String) {
    let listen = vec!["message://127.0.0.1:0".parse().unwrap()];
    let config = Config { listen, ..Config::default() };
    let server = Server::start(&Broker::new(Limits::default()), config, service).unwrap();
    let url = server.addresses()[0].to_string();
    (server, url)
}

pub(crate) fn serve() -> (Server, String) {
    serve_with(Service::locks())
}

pub(crate) fn connect(url: &str) -> client::RemoteSession {
    client::RemoteSession::connect(url, None, SOON).unwrap()
}

/// Waits until `is` accepts the state of the name.
pub(crate) fn until(session: &client::RemoteSession, name: &[u8], is: impl Fn(Inspection) -> bool) {
    let deadline = Instant::now() + SOON;
    while !is(session.inspect(name).unwrap()) {
        assert!(Instant::now() < deadline, "never as expected: {:?}", session.inspect(name));
    }
}

pub(crate) fn names(names: &[&str]) -> Vec<LockName> {
    names.iter().map(|&name| name.into()).collect()
}

pub(crate) fn exclusive(wanted: &[&str]) -> Vec<(LockName, Mode)> {
    names(wanted).into_iter().map(|name| (name, Mode::Exclusive)).collect()
}

pub(crate) fn is_lost<T>(result: &Result<T, AcquireError>) -> bool {
    matches!(result, Err(AcquireError::Lost(_)))
}

pub(crate) fn is_readable(fd: impl AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

/// A server in a process of its own, killed when dropped.
pub(crate) struct Process(Child, pub(crate) String);

impl Process {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(options: &[&str]) -> Self {
        let mut child = without_options(&mut Command::new(env!("CARGO_BIN_EXE_lockd")))
            .args(["serve", "--listen", "message://127.0.0.1:0"])
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = log.find_map(|line| Some(line.unwrap().split_once("listening on ")?.1.to_owned())).unwrap();
        // Keep reading, so that later output never blocks it.
        thread::spawn(move || log.for_each(drop));
        Self(child, url)
    }

    pub(crate) fn pause(&self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::STOP).unwrap();
        // Reported once every thread of it has stopped.
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    }

    /// Sends the signal and waits until the server has ended.
    pub(crate) fn end(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn resume(&self) {
        kill_process(Pid::from_child(&self.0), Signal::CONT).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
