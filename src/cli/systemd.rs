//! The service manager's side of a server: sockets that it has bound for it, and what it is told: that the server
//! is ready, reads its configuration again, stops, and is alive. All of it is silence where there is no service
//! manager, or one that does not ask. See sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
#![expect(unsafe_code, reason = "sockets are inherited as bare numbers")]

use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use env_logger::fmt::Formatter;
use lockd::broker::Broker;
use lockd::server::{Inherited, Server};
use log::{Level, Record};
use sd_notify::NotifyState;

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

/// All listeners are bound and served.
pub(super) fn tell_ready(server: &Server) {
    let status = format!("listening; addresses: {}", server.addresses().len());
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The configuration is about to be read again; [`tell_ready`] says when that is over.
pub(super) fn tell_reloading() {
    // Without the time newer managers take no notice of the rest.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("the clock cannot be read: {error}"),
    }
}

/// The server is about to stop.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("the service manager cannot be told: {error}");
    }
}

/// Whether the standard error goes to the journal, says the environment.
pub(super) fn logs_to_journal() -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// A line as the journal wants it: it knows the time itself, and takes the level from the beginning of the line
/// (sd-daemon(3)).
pub(super) fn write_for_journal(to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let priority = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    writeln!(to, "<{priority}>{}", record.args())
}

/// The signs of life that the service manager wants, if it does.
pub(super) struct Heartbeat {
    /// How often: twice as often as the service manager says it must have one.
    interval: Option<Duration>,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        let interval = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { interval: interval.filter(|interval| !interval.is_zero()) }
    }

    /// The next event, or [`RecvTimeoutError::Timeout`] when it is time for a sign of life.
    pub(super) fn next<E>(&self, events: &Receiver<E>) -> Result<E, RecvTimeoutError> {
        match self.interval {
            Some(interval) => events.recv_timeout(interval),
            None => events.recv().map_err(RecvTimeoutError::from),
        }
    }

    /// Gives a sign of life once the broker has answered. It takes every lock that clients' requests take: if one
    /// of them never comes free, this does not return, the service manager hears nothing more, and starts the
    /// server anew.
    pub(super) fn beat(&self, broker: &Broker, server: &Server) {
        if self.interval.is_none() {
            return;
        }
        let stats = broker.stats();
        let connections = server.connections();
        if broker.has_failed() {
            return;
        }
        let held = stats.locks + stats.shared_locks;
        let mut status = format!("connections: {connections}, locks: {held}, waiting: {}", stats.waiting);
        let grace = broker.grace();
        if !grace.is_zero() {
            status += &format!("; nothing is granted for {} s", grace.as_secs_f64().ceil());
        }
        tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::thread;

    use lockd::broker::{Attempt, Key, LockName, Mode, Observer, Outcome, Space, Ticket, Wait};
    use lockd::server::{Config, Service};

    use super::*;

    /// Keeps the broker busy, with its lock held, from the decision it is told of until it may go on.
    struct Blocking {
        begun: Mutex<Sender<()>>,
        go_on: Mutex<Receiver<()>>,
    }

    impl Observer for Blocking {
        fn decided(&self, _: Ticket, _: Outcome) {
            self.begun.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }

        fn deliver(&self) {}
    }

    #[test]
    fn a_broker_that_does_not_answer_is_given_no_sign_of_life() {
        let broker = Broker::default();
        let config = Config { listen: Vec::new(), ..Config::default() };
        let server = Server::start(&broker, config, Service::locks()).unwrap();
        let (begun, has_begun) = channel();
        let (let_go, go_on) = channel();
        let blocking = Arc::new(Blocking { begun: Mutex::new(begun), go_on: Mutex::new(go_on) });
        let (holder, waiter) = (broker.attach("holder", blocking.clone()), broker.attach("waiter", blocking));
        let wants = [(Key { space: Space::Main, name: LockName::new(b"foo") }, Mode::Exclusive)];
        assert!(matches!(holder.acquire(&wants, None), Ok(Attempt::Granted(_))));
        let wait = Wait { ticket: 1, limit: None };
        assert!(matches!(waiter.acquire(&wants, Some(wait)), Ok(Attempt::Queued)));

        let order = Mutex::new(Vec::new());
        let heartbeat = Heartbeat { interval: Some(Duration::from_millis(1)) };
        thread::scope(|scope| {
            scope.spawn(|| holder.release(Space::Main, b"foo"));
            has_begun.recv().unwrap();
            let beating = scope.spawn(|| {
                heartbeat.beat(&broker, &server);
                order.lock().unwrap().push("sign of life");
            });
            // However long it has, it does not come before the broker goes on.
            thread::sleep(Duration::from_millis(100));
            order.lock().unwrap().push("broker");
            let_go.send(()).unwrap();
            beating.join().unwrap();
        });
        assert_eq!(*order.lock().unwrap(), ["broker", "sign of life"]);
    }
}
