//! What all connections of a server share: the broker, how the server is set up, who is connected, and
//! the counters.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use super::config::Config;
use super::framing::Framing;
use super::log_throttle::LogThrottle;
use super::maintenance::Maintenance;
use super::send_queue::SendQueue;
use crate::broker::{Broker, SessionInfo};
use crate::os::socket::{Stream, Waker};
use crate::os::sync::{Arc, AtomicBool, AtomicU64, Mutex, RwLock};
use crate::os::thread::Thread;

/// How many commands of a text protocol are told apart.
pub(super) const COMMANDS: usize = 16;

/// Commands since the start, by the protocol's own numbers for them.
#[derive(Default)]
pub(super) struct CommandCounts([AtomicU64; COMMANDS]);

impl CommandCounts {
    /// Adds what one connection has counted for itself, and lets it start again from zero.
    pub(super) fn add(&self, counted: &mut [u64; COMMANDS]) {
        for (total, count) in self.0.iter().zip(counted) {
            if *count > 0 {
                total.fetch_add(std::mem::take(count), Relaxed);
            }
        }
    }

    pub(super) fn get(&self, command: usize) -> u64 {
        self.0.get(command).map_or(0, |count| count.load(Relaxed))
    }
}

/// Someone who is connected.
struct ConnectionEntry {
    send_queue: Arc<SendQueue>,
    /// Known once its thread has begun.
    info: Option<Arc<SessionInfo>>,
    thread: Option<Thread>,
}

pub(super) struct ServerState {
    pub(super) broker: Broker,
    config: RwLock<Arc<Config>>,
    entries: Mutex<BTreeMap<u64, ConnectionEntry>>,
    guest_ids: AtomicU64,
    pub(super) maintenance: Arc<Maintenance>,
    /// Readable once the server is to stop.
    pub(super) stop: Waker,
    pub(super) stopping: AtomicBool,
    pub(super) started: Instant,
    pub(super) lockd_commands: CommandCounts,
    pub(super) glockd_commands: CommandCounts,
    pub(super) messages: AtomicU64,
    /// Connections turned away: not on the access list, too many, out of resources.
    pub(super) refused: AtomicU64,
    /// Having to turn connections away for lack of room.
    pub(super) full: LogThrottle,
    /// Having to refuse who does not get through the opening of a conversation.
    pub(super) strangers: LogThrottle,
    /// Turning away who is not on the access list.
    pub(super) unlisted: LogThrottle,
    /// Clients that are cut off because they do not read.
    pub(super) deaf: LogThrottle,
    /// Requests refused because of a limit.
    pub(super) limited: LogThrottle,
    /// Clients that have gone with locks held.
    pub(super) orphaned: LogThrottle,
    pub(super) on_failure: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// What has become of a name that a session wanted to register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registered {
    Done,
    TooLong,
    /// The server keeps no names.
    Disabled,
}

impl ServerState {
    pub(super) fn new(broker: Broker, config: Config) -> std::io::Result<Self> {
        let maintenance = Arc::new(Maintenance::new()?);
        let seldom = |summary| LogThrottle::new(&maintenance, summary);
        Ok(Self {
            full: seldom(|more, _| format!("{more} more connections were refused for lack of room")),
            strangers: seldom(|more, _| format!("{more} more connections were refused before they began")),
            unlisted: seldom(|more, _| {
                format!("{more} more connections were refused: not on the access list")
            }),
            deaf: seldom(|more, _| {
                format!("{more} more clients were cut off: they have left too much unread")
            }),
            limited: seldom(|more, _| format!("{more} more requests were refused because of a limit")),
            orphaned: seldom(|more, locks| {
                format!("{more} more clients have gone with locks; locks they held, now free: {locks}")
            }),
            broker,
            config: RwLock::new(Arc::new(config)),
            entries: Mutex::default(),
            guest_ids: AtomicU64::new(0),
            maintenance: maintenance.clone(),
            stop: Waker::new()?,
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            lockd_commands: CommandCounts::default(),
            glockd_commands: CommandCounts::default(),
            messages: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            on_failure: Mutex::default(),
        })
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    /// Sets the server up anew, but for what decides between locks: connections that go by different
    /// rules could both hold one.
    pub(super) fn set_config(&self, config: Config) {
        let keeps_names = config.registry;
        let mut current = self.config.write();
        *current = Arc::new(Config { shared_excludes: current.shared_excludes, ..config });
        drop(current);
        if !keeps_names {
            // After the configuration: `register` looks at that again once it has set a name.
            for info in self.sessions() {
                info.forget_name();
            }
        }
    }

    /// Registers a session's name, or forgets it, as the configuration of now has it: names that are disabled are
    /// kept for no connection, however old it is.
    pub(super) fn register(&self, info: &SessionInfo, name: Option<&[u8]>) -> Registered {
        if !self.config().registry {
            return Registered::Disabled;
        }
        if !info.set_name(name) {
            return Registered::TooLong;
        }
        if self.config().registry {
            return Registered::Done;
        }
        info.forget_name();
        Registered::Disabled
    }

    /// Makes room for a connection; gives its stream back if there are too many.
    pub(super) fn admit(
        &self,
        stream: Stream,
        config: &Config,
        framing: Option<Framing>,
    ) -> Result<(u64, Arc<SendQueue>), Stream> {
        let mut entries = self.entries.lock();
        if entries.len() >= config.connections_max {
            return Err(stream);
        }
        let id = self.guest_ids.fetch_add(1, Relaxed);
        let send_queue =
            Arc::new(SendQueue::new(stream, config.outbox_bytes_max, self.maintenance.clone(), framing));
        entries.insert(id, ConnectionEntry { send_queue: send_queue.clone(), info: None, thread: None });
        Ok((id, send_queue))
    }

    /// Notes which thread serves the connection; it may have ended already.
    pub(super) fn set_thread(&self, id: u64, thread: Thread) {
        let mut entries = self.entries.lock();
        match entries.get_mut(&id) {
            Some(entry) => entry.thread = Some(thread),
            None => self.maintenance.bury(thread),
        }
    }

    pub(super) fn set_info(&self, id: u64, info: Arc<SessionInfo>) {
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            entry.info = Some(info);
        }
    }

    /// The connection has ended: the last thing its thread does.
    pub(super) fn leave(&self, id: u64) {
        let gone = self.entries.lock().remove(&id);
        if let Some(thread) = gone.and_then(|entry| entry.thread) {
            self.maintenance.bury(thread);
        }
    }

    /// Whether the broker has failed; if so, the listeners stop, and whoever wants to know is told.
    pub(super) fn has_failed(&self) -> bool {
        let failed = self.broker.has_failed();
        if failed {
            self.stop.wake();
            let report = self.on_failure.lock().take();
            if let Some(report) = report {
                report();
                log::error!("the broker has failed; nothing is answered any more");
            }
        }
        failed
    }

    pub(super) fn connections(&self) -> usize {
        self.entries.lock().len()
    }

    /// The sessions of all connections, in the order in which they came.
    pub(super) fn sessions(&self) -> Vec<Arc<SessionInfo>> {
        self.entries.lock().values().filter_map(|entry| entry.info.clone()).collect()
    }

    /// Ends the connections of the sessions that `is_meant` picks: their clients find out, and end their work if they
    /// asked for time for that, before their locks go to others. Those kicked a second time are given no time for
    /// their work any more. Returns the sessions.
    pub(super) fn kick(&self, is_meant: impl Fn(&SessionInfo) -> bool) -> Vec<Arc<SessionInfo>> {
        let known = |entry: &ConnectionEntry| Some((entry.info.clone()?, entry.send_queue.clone()));
        // Picked with the list let go: whoever looks at a name takes a lock for it.
        let all: Vec<_> = self.entries.lock().values().filter_map(known).collect();
        let meant = all.into_iter().filter(|(info, _)| is_meant(info));
        meant
            .map(|(info, send_queue)| {
                send_queue.kick();
                // It cannot be told of a grant any more.
                self.broker.end_waits(&info);
                if info.locks_held() == 0 {
                    // Nobody waits for its work to end.
                    send_queue.limit_wind_down(Duration::ZERO);
                }
                info
            })
            .collect()
    }

    /// Whether the server is stopping, and its broker will grant nothing any more.
    pub(super) fn is_over(&self) -> bool {
        self.broker.has_failed() || self.broker.is_shut() && self.stopping.load(Acquire)
    }

    /// Hangs up on every connection.
    pub(super) fn hang_up_all(&self) {
        self.entries.lock().values().for_each(|entry| entry.send_queue.hang_up());
    }

    /// The connections that hold locks.
    pub(super) fn holders(&self) -> Vec<Arc<SendQueue>> {
        let holds = |entry: &&ConnectionEntry| entry.info.as_ref().is_some_and(|info| info.locks_held() > 0);
        self.entries.lock().values().filter(holds).map(|entry| entry.send_queue.clone()).collect()
    }

    /// Closes every connection; returns the threads that still serve one. A client's work is waited for no longer
    /// than for a client that is out of reach, so that none can keep the server from stopping.
    pub(super) fn close_all(&self) -> Vec<Thread> {
        // Nobody is granted anything any more, so nothing is to be learnt of clients that do not know.
        let is_over = self.is_over();
        let longest = self.config().dead_peer_timeout;
        let mut entries = self.entries.lock();
        entries
            .values_mut()
            .filter_map(|entry| {
                let holds = entry.info.as_ref().is_some_and(|info| info.locks_held() > 0);
                entry.send_queue.limit_wind_down(if holds { longest } else { Duration::ZERO });
                entry.send_queue.close();
                if is_over {
                    entry.send_queue.end_input();
                }
                entry.thread.take()
            })
            .collect()
    }
}
