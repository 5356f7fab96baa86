//! The service manager's side of a server: sockets that it has bound for it, and what it is told: that the server
//! is ready, reads its configuration again, stops, and is alive. All of it is silence where there is no service
//! manager, or one that does not ask. See sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
#![expect(unsafe_code, reason = "sockets are inherited as bare numbers")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use lockd::broker::Broker;
use lockd::server::{Inherited, Server};
use sd_notify::NotifyState;
use socket2::{Domain, SockAddr, Socket, Type};

/// How often it is tried to tell a service manager what its socket had no room for.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How much of that is kept.
const UNTOLD_MAX: usize = 16;

/// The listening sockets that this process was started with. To be called once, before anything else is opened:
/// what the environment says of descriptors holds for those that were there at the start.
///
/// # Errors
/// If the environment makes no sense, or a socket's name (`FileDescriptorName=`) is no protocol.
pub(super) fn inherited_sockets() -> io::Result<Vec<Inherited>> {
    let sockets = sd_notify::listen_fds_with_names().map_err(in_context)?;
    let take = |(number, name): (i32, String)| {
        // SAFETY: the service manager has left this descriptor to this process, says the environment, and it is
        // open, since it has just been set to be closed on exec. Nothing else has been opened that could be it.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let unknown = |error| in_context(io::Error::new(io::ErrorKind::InvalidInput, error));
        Ok(Inherited { protocol: name.parse().map_err(unknown)?, socket })
    };
    sockets.map(take).collect()
}

fn in_context(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("sockets of the service manager: {error}"))
}

/// Whether the standard error goes to the journal, says the environment.
pub(super) fn logs_to_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The service manager as somebody who is told things, if it wants to be. It is never waited for: while its socket
/// takes nothing, what it was to be told is kept and tried again.
#[derive(Default)]
pub(super) struct Manager {
    /// How often it is given a sign of life: twice as often as it says that it must have one.
    interval: Option<Duration>,
    /// What it has not been told yet, in order.
    untold: RefCell<VecDeque<String>>,
}

impl Manager {
    pub(super) fn new() -> Self {
        let interval = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { interval: interval.filter(|interval| !interval.is_zero()), ..Self::default() }
    }

    /// All listeners are bound and served.
    pub(super) fn tell_ready(&self, server: &Server) {
        let status = format!("listening; addresses: {}", server.addresses().len());
        self.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// The configuration is about to be read again; [`tell_ready`](Self::tell_ready) says when that is over.
    pub(super) fn tell_reloading(&self) {
        // Without the time newer managers take no notice of the rest.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => log::warn!("the clock cannot be read: {error}"),
        }
    }

    /// The server is about to stop.
    pub(super) fn tell_stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        let text = state.iter().map(|line| format!("{line}\n")).collect();
        let mut untold = self.untold.borrow_mut();
        // What is true by now is in the last of them.
        if untold.len() == UNTOLD_MAX {
            untold.pop_front();
        }
        untold.push_back(text);
        drop(untold);
        self.try_to_tell();
    }

    /// Tells it what it takes now of what it has not been told. Says whether that is all.
    fn try_to_tell(&self) -> bool {
        let mut untold = self.untold.borrow_mut();
        while let Some(text) = untold.front() {
            match notify_now(text) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => log::warn!("the service manager cannot be told: {error}"),
                Ok(()) => {}
            }
            untold.pop_front();
        }
        true
    }

    /// The next event, or [`RecvTimeoutError::Timeout`] when it is time to tell the service manager something.
    pub(super) fn next<E>(&self, events: &Receiver<E>) -> Result<E, RecvTimeoutError> {
        let is_behind = !self.untold.borrow().is_empty();
        let retry = is_behind.then_some(RETRY_INTERVAL);
        match retry.into_iter().chain(self.interval).min() {
            Some(limit) => events.recv_timeout(limit),
            None => events.recv().map_err(RecvTimeoutError::from),
        }
    }

    /// Gives a sign of life once the broker has answered. It takes every lock that clients' requests take: if one
    /// of them never comes free, this does not return, the service manager hears nothing more, and starts the
    /// server anew.
    pub(super) fn beat(&self, broker: &Broker, server: &Server) {
        let has_heard_all = self.try_to_tell();
        if self.interval.is_none() {
            return;
        }
        let stats = broker.stats();
        let connections = server.connections();
        if broker.has_failed() || !has_heard_all {
            return;
        }
        let held = stats.locks + stats.shared_locks;
        let mut status = format!("connections: {connections}, locks: {held}, waiting: {}", stats.waiting);
        let grace = broker.grace();
        if !grace.is_zero() {
            status += &format!("; nothing is granted for {} s", grace.as_secs_f64().ceil());
        }
        self.tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

/// Sends this to the socket that the environment names, if it names one, without waiting for room in it.
fn notify_now(text: &str) -> io::Result<()> {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    // A name that is no path is written so, sd_notify(3).
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat()))?,
        None => SockAddr::unix(&address)?,
    };
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
    socket.send_to(text.as_bytes(), &address).map(drop)
}
