//! What all connections of a server share: the broker, the configuration, the list of connections,
//! and the counters. Knows no protocol and no listener.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use super::config::{Config, Protocol};
use super::framing::Framing;
use super::log_throttle::LogThrottle;
use super::maintenance::Maintenance;
use super::parking::Parking;
use super::resume::sessions::{ResumableSession, ResumableSessions};
use super::send_queue::SendQueue;
use super::snapshot::types::{CountersSnapshot, WaitsSnapshot};
use super::upgrades::Upgrades;
use crate::broker::{Broker, SessionInfo};
use crate::os::socket::{Stream, Waker};
use crate::os::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, RwLock};
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

    /// The counts of all commands.
    pub(super) fn all(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Relaxed)).collect()
    }

    /// Counts that go on. An earlier version may have had fewer commands.
    ///
    /// # Errors
    /// If there are more commands.
    pub(super) fn restore(counts: &[u64]) -> Result<Self, &'static str> {
        if counts.len() > COMMANDS {
            return Err("counts of unknown commands");
        }
        let restored = Self::default();
        restored.0.iter().zip(counts).for_each(|(count, before)| count.store(*before, Relaxed));
        Ok(restored)
    }

    pub(super) fn get(&self, command: usize) -> u64 {
        self.0.get(command).map_or(0, |count| count.load(Relaxed))
    }
}

/// What the client of a connection waits for, and the replies that it is owed.
pub(super) trait PendingWaits: Send + Sync {
    fn snapshot(&self) -> WaitsSnapshot;
}

/// What is known of a connection outside of its thread.
#[derive(Clone)]
pub(super) struct ListedConnection {
    pub(super) protocol: Protocol,
    pub(super) address: Arc<str>,
    pub(super) send_queue: Arc<SendQueue>,
    /// What it has begun with.
    pub(super) config: Arc<Config>,
    /// Known once its session has begun.
    pub(super) info: Option<Arc<SessionInfo>>,
    pub(super) waits: Option<Arc<dyn PendingWaits>>,
    /// Its session, if that can continue on another connection.
    pub(super) resumable: Option<Arc<ResumableSession>>,
}

impl ListedConnection {
    fn holds_locks(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.locks_held() > 0)
    }
}

/// One connection in the server's list.
struct ConnectionEntry {
    connection: ListedConnection,
    thread: Option<Thread>,
}

/// What a server is in its cluster. A standby can become the active one, and never the other way.
#[derive(Clone, Debug)]
pub(super) enum ClusterPart {
    Standby(Standby),
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "nothing chooses an active server"))]
    Active(ClusterRun),
}

/// That another server has the locks, or none.
#[derive(Clone, Debug)]
pub(super) struct Standby {
    /// The name of the cluster.
    pub(super) cluster: String,
    /// Where clients find the active server, if that is known.
    pub(super) active: Option<String>,
}

/// The run of an active server.
#[derive(Clone, Debug)]
pub(super) struct ClusterRun {
    /// The name of the cluster.
    pub(super) cluster: String,
    /// The number of the run.
    pub(super) epoch: u64,
    /// When it has begun.
    pub(super) since: Instant,
}

pub(super) struct ServerState {
    pub(super) broker: Broker,
    config: RwLock<Arc<Config>>,
    entries: Mutex<BTreeMap<u64, ConnectionEntry>>,
    next_id: AtomicU64,
    pub(super) maintenance: Arc<Maintenance>,
    pub(super) parking: Arc<Parking>,
    /// Wakes the listeners once they are to stop.
    pub(super) stop: Waker,
    pub(super) stopping: AtomicBool,
    pub(super) started: Instant,
    pub(super) upgrades: Mutex<Upgrades>,
    pub(super) resumable: ResumableSessions,
    /// What this server is in its cluster, if it is in one. While it is a standby, no connection gets
    /// a session.
    pub(super) cluster: Mutex<Option<ClusterPart>>,
    /// How many connections have ended whose sessions may resume.
    pub(super) in_doubt_now: AtomicUsize,
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
    /// Sessions that have lost their connection with locks held, and may resume.
    pub(super) in_doubt: LogThrottle,
    /// Sessions that have resumed.
    pub(super) resumed: LogThrottle,
    /// Sessions that were told that they have ended.
    pub(super) resume_refused: LogThrottle,
    /// Sessions whose locks stay because the state directory cannot be written.
    pub(super) not_written: LogThrottle,
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
        Self::with_maintenance(broker, config, Arc::new(Maintenance::new()?))
    }

    /// A server for connections that know their maintenance already.
    pub(super) fn with_maintenance(
        broker: Broker,
        config: Config,
        maintenance: Arc<Maintenance>,
    ) -> std::io::Result<Self> {
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
            in_doubt: throttle(|more, locks| {
                format!(
                    "{more} more sessions have lost their connection and may resume; locks they hold: {locks}"
                )
            }),
            resumed: throttle(|more, locks| {
                format!("sessions have resumed {more} more times; locks they held then: {locks}")
            }),
            resume_refused: throttle(|more, _| format!("sessions could not resume {more} more times")),
            not_written: throttle(|more, _| {
                format!("{more} more times the state of this run could not be written, and locks have stayed")
            }),
            broker,
            config: RwLock::new(Arc::new(config)),
            entries: Mutex::default(),
            next_id: AtomicU64::new(0),
            maintenance,
            parking: Arc::default(),
            stop: Waker::new()?,
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            upgrades: Mutex::default(),
            resumable: ResumableSessions::default(),
            cluster: Mutex::default(),
            in_doubt_now: AtomicUsize::new(0),
            lockd_commands: CommandCounts::default(),
            glockd_commands: CommandCounts::default(),
            messages: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            on_failure: Mutex::default(),
        })
    }

    /// What a standby knows; `None` if this server is not a standby.
    pub(super) fn standby(&self) -> Option<Standby> {
        match &*self.cluster.lock() {
            Some(ClusterPart::Standby(standby)) => Some(standby.clone()),
            Some(ClusterPart::Active(_)) | None => None,
        }
    }

    /// The run of the active server of a cluster; `None` if this is not one.
    pub(super) fn cluster_run(&self) -> Option<ClusterRun> {
        match &*self.cluster.lock() {
            Some(ClusterPart::Active(run)) => Some(run.clone()),
            Some(ClusterPart::Standby(_)) | None => None,
        }
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
            self.forget_names();
        }
    }

    pub(super) fn forget_names(&self) {
        for info in self.sessions() {
            info.forget_name();
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
        config: &Arc<Config>,
        framing: Option<Framing>,
        (protocol, address): (Protocol, &str),
    ) -> Result<(u64, Arc<SendQueue>), Stream> {
        let mut entries = self.entries.lock();
        // Sessions in doubt need room to come back. They do not count, but there are no more of them
        // than of others.
        let counted = entries.len().saturating_sub(self.in_doubt_now.load(Relaxed));
        if counted >= config.connections_max || entries.len() >= config.connections_max.saturating_mul(2) {
            return Err(stream);
        }
        let id = self.next_id.fetch_add(1, Relaxed);
        let send_queue =
            Arc::new(SendQueue::new(stream, config.outbox_bytes_max, self.maintenance.clone(), framing));
        let connection = ListedConnection {
            protocol,
            address: address.into(),
            send_queue: send_queue.clone(),
            config: config.clone(),
            info: None,
            waits: None,
            resumable: None,
        };
        entries.insert(id, ConnectionEntry { connection, thread: None });
        Ok((id, send_queue))
    }

    /// Adds a connection that an earlier image of the program had accepted, however many there are.
    pub(super) fn readmit(&self, id: u64, connection: ListedConnection) {
        let earlier = self.entries.lock().insert(id, ConnectionEntry { connection, thread: None });
        debug_assert!(earlier.is_none(), "two connections have one number");
    }

    /// All connections, by their numbers.
    pub(super) fn listed_connections(&self) -> Vec<(u64, ListedConnection)> {
        self.entries.lock().iter().map(|(&id, entry)| (id, entry.connection.clone())).collect()
    }

    /// What has been counted since the start.
    pub(super) fn counters(&self) -> CountersSnapshot {
        CountersSnapshot {
            next_id: self.next_id.load(Relaxed),
            refused: self.refused.load(Relaxed),
            messages: self.messages.load(Relaxed),
            lockd_commands: self.lockd_commands.all(),
            glockd_commands: self.glockd_commands.all(),
        }
    }

    /// Goes on counting.
    ///
    /// # Errors
    /// If the counters are not a server's.
    pub(super) fn resume_counters(
        &mut self,
        counters: &CountersSnapshot,
        started: Instant,
    ) -> Result<(), &'static str> {
        self.started = started;
        self.next_id = AtomicU64::new(counters.next_id);
        self.refused = AtomicU64::new(counters.refused);
        self.messages = AtomicU64::new(counters.messages);
        self.lockd_commands = CommandCounts::restore(&counters.lockd_commands)?;
        self.glockd_commands = CommandCounts::restore(&counters.glockd_commands)?;
        Ok(())
    }

    /// Sets the thread that serves the connection. The connection may have ended already.
    pub(super) fn set_thread(&self, id: u64, thread: Thread) {
        let mut entries = self.entries.lock();
        match entries.get_mut(&id) {
            Some(entry) => entry.thread = Some(thread),
            None => self.maintenance.join_later(thread),
        }
    }

    /// Notes the session of the connection, and its observer.
    pub(super) fn set_session(&self, id: u64, info: Arc<SessionInfo>, waits: Arc<dyn PendingWaits>) {
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            (entry.connection.info, entry.connection.waits) = (Some(info), Some(waits));
        }
    }

    /// Notes that the session of the connection can continue on another one.
    pub(super) fn set_resumable(&self, id: u64, resumable: Option<Arc<ResumableSession>>) {
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            entry.connection.resumable = resumable;
        }
    }

    /// The session of the connection has another one now.
    pub(super) fn forget_session(&self, id: u64) {
        if let Some(entry) = self.entries.lock().get_mut(&id) {
            let ListedConnection { info, waits, resumable, .. } = &mut entry.connection;
            (*info, *waits, *resumable) = (None, None, None);
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
        self.entries.lock().values().filter_map(|entry| entry.connection.info.clone()).collect()
    }

    /// Ends the connections of the sessions that `is_meant` picks, and returns these sessions.
    /// Their locks go to others only when their clients know and have had the time that they asked
    /// for to end their work. A session that is kicked a second time gets no more time for its
    /// work.
    pub(super) fn kick(&self, is_meant: impl Fn(&SessionInfo) -> bool) -> Vec<Arc<SessionInfo>> {
        let known = |ConnectionEntry { connection, .. }: &ConnectionEntry| {
            let ListedConnection { info, send_queue, resumable, .. } = connection;
            Some((info.clone()?, send_queue.clone(), resumable.clone()))
        };
        // Picked with the list unlocked, since `is_meant` may lock a session's name.
        let all: Vec<_> = self.entries.lock().values().filter_map(known).collect();
        let meant = all.into_iter().filter(|(info, ..)| is_meant(info));
        meant
            .map(|(info, send_queue, resumable)| {
                // First: the client may try to resume as soon as its connection ends.
                if let Some(resumable) = resumable {
                    self.resumable.set_over(&resumable);
                    info.set_in_doubt(true);
                }
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
        self.entries.lock().values().for_each(|entry| entry.connection.send_queue.hang_up());
    }

    /// The connections that hold locks.
    pub(super) fn holders(&self) -> Vec<Arc<SendQueue>> {
        let entries = self.entries.lock();
        let connections = entries.values().map(|entry| &entry.connection);
        let holding = connections.filter(|connection| connection.holds_locks());
        holding.map(|connection| connection.send_queue.clone()).collect()
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
                let ListedConnection { send_queue, .. } = &entry.connection;
                let limit = if entry.connection.holds_locks() { wind_down_max } else { Duration::ZERO };
                send_queue.with_end(|end| end.limit_wind_down(limit));
                send_queue.close();
                if is_stopped {
                    send_queue.end_input();
                }
                entry.thread.take()
            })
            .collect()
    }
}
