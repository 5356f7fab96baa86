//! The server and its service manager: listening sockets that the manager has bound, and
//! notifications to it: that the server is ready, reloads its configuration, stops, and is alive.
//! Without a service manager, or with one that wants no notifications, none of this does anything.
//! See sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
#![expect(unsafe_code, reason = "sockets are inherited as bare numbers")]

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use lockd::broker::Broker;
use lockd::server::{Inherited, Server};
use sd_notify::NotifyState;
use socket2::{Domain, SockAddr, Socket, Type};

/// How often to try again to send notifications for which the manager's socket had no room.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How many unsent notifications are kept.
const UNSENT_MAX: usize = 16;

/// The listening sockets that this process was started with. Must be called once, before anything
/// else is opened: the descriptor numbers in the environment are those of the start.
///
/// # Errors
/// If the variables are wrong, or a socket's name (`FileDescriptorName=`) is not a protocol.
pub(super) fn inherited_sockets() -> io::Result<Vec<Inherited>> {
    let sockets = sd_notify::listen_fds_with_names().map_err(in_context)?;
    let take = |(number, name): (i32, String)| {
        // SAFETY: the environment says that the service manager has passed this descriptor to this
        // process. It is open, since it has just been set to be closed on exec, and nothing else
        // has been opened that could own it.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let unknown = |error| in_context(io::Error::new(io::ErrorKind::InvalidInput, error));
        Ok(Inherited { protocol: name.parse().map_err(unknown)?, socket })
    };
    sockets.map(take).collect()
}

fn in_context(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("sockets of the service manager: {error}"))
}

/// Whether standard error is the journal, according to the environment.
pub(super) fn logs_to_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Sends notifications to the service manager, if it wants any. Never waits for it: notifications
/// for which its socket has no room are kept and sent later.
#[derive(Default)]
pub(super) struct ServiceManager {
    /// How often to send a sign of life: twice as often as the manager requires.
    interval: Option<Duration>,
    /// Notifications that could not be sent yet, in order.
    unsent: VecDeque<String>,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        let interval = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { interval: interval.filter(|interval| !interval.is_zero()), ..Self::default() }
    }

    /// Notifies the manager that all listeners are bound and served.
    pub(super) fn notify_ready(&mut self, server: &Server) {
        let status = format!("listening; addresses: {}", server.addresses().len());
        self.notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// Notifies the manager that the configuration is about to be read again, until
    /// [`notify_ready`](Self::notify_ready).
    pub(super) fn notify_reloading(&mut self) {
        // Newer managers ignore this notification if it does not contain the time.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notify(&[NotifyState::Reloading, now]),
            Err(error) => log::warn!("the clock cannot be read: {error}"),
        }
    }

    /// Notifies the manager that the program is about to be replaced by its next version, in the
    /// same process, until [`notify_ready`](Self::notify_ready).
    pub(super) fn notify_upgrading(&mut self) {
        self.notify_reloading();
        self.notify(&[NotifyState::Status("upgrading")]);
    }

    /// Notifies the manager that the server is about to stop.
    pub(super) fn notify_stopping(&mut self) {
        self.notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    fn notify(&mut self, state: &[NotifyState<'_>]) {
        let text = state.iter().map(|line| format!("{line}\n")).collect();
        // The newest notifications say what is true now, so the oldest one is dropped.
        if self.unsent.len() == UNSENT_MAX {
            self.unsent.pop_front();
        }
        self.unsent.push_back(text);
        self.send_unsent();
    }

    /// Sends as many unsent notifications as the manager's socket takes. Returns whether that is
    /// all of them.
    fn send_unsent(&mut self) -> bool {
        while let Some(text) = self.unsent.front() {
            match send_now(text) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => log::warn!("the service manager cannot be notified: {error}"),
                Ok(()) => {}
            }
            self.unsent.pop_front();
        }
        true
    }

    /// Waits for the next event, or until it is time for [`beat`](Self::beat): then the error is
    /// [`RecvTimeoutError::Timeout`].
    pub(super) fn next<E>(&self, events: &Receiver<E>) -> Result<E, RecvTimeoutError> {
        let has_unsent = !self.unsent.is_empty();
        let retry = has_unsent.then_some(RETRY_INTERVAL);
        match retry.into_iter().chain(self.interval).min() {
            Some(limit) => events.recv_timeout(limit),
            None => events.recv().map_err(RecvTimeoutError::from),
        }
    }

    /// Sends a sign of life once the broker has answered. The broker's answer takes every mutex
    /// that clients' requests take: if one of them is locked for good, this does not return, and
    /// the service manager restarts the server after its time limit.
    /// `cluster` is what the server is in its cluster.
    pub(super) fn beat(&mut self, broker: &Broker, server: &Server, cluster: Option<&str>) {
        let has_sent_all = self.send_unsent();
        if self.interval.is_none() {
            return;
        }
        let stats = broker.stats();
        let connections = server.connections();
        if broker.has_failed() || !has_sent_all {
            return;
        }
        let held = stats.locks + stats.shared_locks;
        let mut status = format!("connections: {connections}, locks: {held}, waiting: {}", stats.waiting);
        if let Some(cluster) = cluster {
            status = format!("{cluster}; {status}");
        }
        let grace = broker.grace();
        if !grace.is_zero() {
            status += &format!("; nothing is granted for {} s", grace.as_secs_f64().ceil());
        }
        self.notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

/// Sends `text` to the socket that the environment names, if there is one, without waiting for room
/// in it.
fn send_now(text: &str) -> io::Result<()> {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    // An abstract name begins with `@`, see sd_notify(3).
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat()))?,
        None => SockAddr::unix(&address)?,
    };
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
    socket.send_to(text.as_bytes(), &address).map(drop)
}
