//! What all connections of a server share: the broker, the configuration, the list of connections,
//! and the counters. Knows no protocol and no listener.

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

/// How many commands of a text protocol are counted separately, at most.
pub(super) const COMMANDS: usize = 16;

/// How often each command was given since the start, by the protocol's own numbers for its
/// commands.
#[derive(Default)]
pub(super) struct CommandCounts([AtomicU64; COMMANDS]);

impl CommandCounts {
    /// Adds the counts of one connection, and resets those to zero.
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

/// One connection in the server's list.
struct ConnectionEntry {
    send_queue: Arc<SendQueue>,
    /// Known once its session has begun.
    info: Option<Arc<SessionInfo>>,
    thread: Option<Thread>,
}

pub(super) struct ServerState {
    pub(super) broker: Broker,
    config: RwLock<Arc<Config>>,
    entries: Mutex<BTreeMap<u64, ConnectionEntry>>,
    next_id: AtomicU64,
    pub(super) maintenance: Arc<Maintenance>,
    /// Wakes the listeners once they are to stop.
    pub(super) stop: Waker,
    pub(super) stopping: AtomicBool,
    pub(super) started: Instant,
    pub(super) lockd_commands: CommandCounts,
    pub(super) glockd_commands: CommandCounts,
    pub(super) messages: AtomicU64,
    /// How many connections were refused: not on the access list, too many, out of resources,
    /// failed handshakes.
    pub(super) refused: AtomicU64,
    /// Connections that were refused for lack of room.
    pub(super) no_room: LogThrottle,
    /// Connections that were refused in the handshake, or because of their protocol.
    pub(super) refused_early: LogThrottle,
    /// Connections that were refused because of the access list.
    pub(super) unlisted: LogThrottle,
    /// Clients that were cut off because they did not read.
    pub(super) cut_off: LogThrottle,
    /// Requests that were refused because of a limit.
    pub(super) limit_exceeded: LogThrottle,
    /// Clients that have gone with locks held.
    pub(super) orphaned: LogThrottle,
    /// Called once if the broker fails.
    pub(super) on_failure: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// How the registration of a session's name ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameRegistration {
    Done,
    TooLong,
    /// The server keeps no names.
    Disabled,
}

impl ServerState {
    pub(super) fn new(broker: Broker, config: Config) -> std::io::Result<Self> {
        let maintenance = Arc::new(Maintenance::new()?);
        let throttle = |summary| LogThrottle::new(&maintenance, summary);
        Ok(Self {
            no_room: throttle(|more, _| format!("{more} more connections were refused for lack of room")),
            refused_early: throttle(|more, _| {
                format!("{more} more connections were refused before they began")
            }),
            unlisted: throttle(|more, _| {
                format!("{more} more connections were refused: not on the access list")
            }),
            cut_off: throttle(|more, _| {
                format!("{more} more clients were cut off: they have left too much unread")
            }),
            limit_exceeded: throttle(|more, _| {
                format!("{more} more requests were refused because of a limit")
            }),
            orphaned: throttle(|more, locks| {
                format!("{more} more clients have gone with locks; locks they held, now free: {locks}")
            }),
            broker,
            config: RwLock::new(Arc::new(config)),
            entries: Mutex::default(),
            next_id: AtomicU64::new(0),
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

    /// Replaces the configuration, except for whether shared locks exclude exclusive ones: two
    /// connections that applied different rules could both hold a lock.
    pub(super) fn set_config(&self, config: Config) {
        let keeps_names = config.registry;
        let mut current = self.config.write();
        *current = Arc::new(Config { shared_excludes: current.shared_excludes, ..config });
        drop(current);
        if !keeps_names {
            // Only after the configuration has been replaced: `register` checks it again once it
            // has set a name.
            for info in self.sessions() {
                info.forget_name();
            }
        }
    }

    /// Registers a session's name, or removes it if `name` is `None`. Uses the present
    /// configuration, not the one that the connection began with, so that no name is kept once
    /// names are disabled.
    pub(super) fn register(&self, info: &SessionInfo, name: Option<&[u8]>) -> NameRegistration {
        if !self.config().registry {
            return NameRegistration::Disabled;
        }
        if !info.set_name(name) {
            return NameRegistration::TooLong;
        }
        if self.config().registry {
            return NameRegistration::Done;
        }
        info.forget_name();
        NameRegistration::Disabled
    }

    /// Adds a connection to the list. Gives its stream back if there are too many.
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
        let id = self.next_id.fetch_add(1, Relaxed);
        let send_queue =
            Arc::new(SendQueue::new(stream, config.outbox_bytes_max, self.maintenance.clone(), framing));
        entries.insert(id, ConnectionEntry { send_queue: send_queue.clone(), info: None, thread: None });
        Ok((id, send_queue))
    }

    /// Sets the thread that serves the connection. The connection may have ended already.
    pub(super) fn set_thread(&self, id: u64, thread: Thread) {
        let mut entries = self.entries.lock();
        match entries.get_mut(&id) {
            Some(entry) => entry.thread = Some(thread),
            None => self.maintenance.join_later(thread),
        }
    }

    pub(super) fn set_info(&self, id: u64, info: Arc<SessionInfo>) {
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            entry.info = Some(info);
        }
    }

    /// Removes a connection that has ended from the list: the last thing that its thread does.
    pub(super) fn remove(&self, id: u64) {
        let entry = self.entries.lock().remove(&id);
        if let Some(thread) = entry.and_then(|entry| entry.thread) {
            self.maintenance.join_later(thread);
        }
    }

    /// Whether the broker has failed. If so, stops the listeners and calls `on_failure`.
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

    /// The sessions of all connections, in the order in which these were accepted.
    pub(super) fn sessions(&self) -> Vec<Arc<SessionInfo>> {
        self.entries.lock().values().filter_map(|entry| entry.info.clone()).collect()
    }

    /// Ends the connections of the sessions that `is_meant` picks, and returns these sessions.
    /// Their locks go to others only when their clients know and have had the time that they asked
    /// for to end their work. A session that is kicked a second time gets no more time for its
    /// work.
    pub(super) fn kick(&self, is_meant: impl Fn(&SessionInfo) -> bool) -> Vec<Arc<SessionInfo>> {
        let known = |entry: &ConnectionEntry| Some((entry.info.clone()?, entry.send_queue.clone()));
        // Picked with the list unlocked, since `is_meant` may lock a session's name.
        let all: Vec<_> = self.entries.lock().values().filter_map(known).collect();
        let meant = all.into_iter().filter(|(info, _)| is_meant(info));
        meant
            .map(|(info, send_queue)| {
                send_queue.kick();
                // No grant can reach its client any more.
                self.broker.end_waits(&info);
                if info.locks_held() == 0 {
                    // It holds no lock, so its work keeps no other session waiting.
                    send_queue.with_end(|end| end.limit_wind_down(Duration::ZERO));
                }
                info
            })
            .collect()
    }

    /// Whether the server is stopping and its broker grants nothing any more.
    pub(super) fn is_stopped(&self) -> bool {
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

    /// Closes every connection, and returns the threads that still serve one. A client gets no
    /// longer than the dead-peer timeout for its work, so that none can keep the server from
    /// stopping.
    pub(super) fn close_all(&self) -> Vec<Thread> {
        // If nothing is granted any more, it does not matter which clients do not know yet.
        let is_stopped = self.is_stopped();
        let wind_down_max = self.config().dead_peer_timeout;
        let mut entries = self.entries.lock();
        entries
            .values_mut()
            .filter_map(|entry| {
                let holds = entry.info.as_ref().is_some_and(|info| info.locks_held() > 0);
                let limit = if holds { wind_down_max } else { Duration::ZERO };
                entry.send_queue.with_end(|end| end.limit_wind_down(limit));
                entry.send_queue.close();
                if is_stopped {
                    entry.send_queue.end_input();
                }
                entry.thread.take()
            })
            .collect()
    }
}
