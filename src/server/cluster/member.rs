//! A server's part in its cluster: the thread that looks who is active, takes over when nobody is,
//! and says from then on that this server is. It reports what happens; the caller decides what becomes
//! of the process.

use std::io;
use std::time::Duration;

use super::activation::{Activation, NotActivated};
use super::consensus::{Consensus, ConsensusError};
use super::keys::{ClusterSettings, Keys, LeaderKey};
use super::leadership::{Leadership, Limiter, Renewal};
use super::observation::{Observation, Seen};
use super::status::ClusterReader;
use super::times::ClusterTimes;
use crate::broker::Broker;
use crate::etcd::{Condition, Write};
use crate::os::boot_clock::BootTime;
use crate::os::process_limit::{self, ProcessLimit};
use crate::os::sync::{Arc, Condvar, Mutex};
use crate::os::thread::{SignalsBlocked, Thread};
use crate::server::keeper::{Keeper, Resumption};
use crate::server::resume::secret_key::random_id;

/// The stack of the thread, which does TLS: address space.
const STACK_BYTES: usize = 2 << 20;
/// While etcd does not answer, that is logged at this interval.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a member of a cluster is told of.
pub enum MemberEvent {
    /// This server is the active one from now on, with this keeper. Its broker has begun.
    TookOver(Keeper),
    /// The time of this server as the active one is over, for this reason. Not a word more is said
    /// to clients; the process must end.
    Over(String),
    /// This server cannot be a member of the cluster, for this reason, and starting it again will
    /// not help.
    Refused(String),
}

/// What a member does with the server around it.
pub(super) trait Surroundings: Send {
    /// Another server is active, or none. Clients are told where.
    fn set_active_elsewhere(&self, address: Option<&str>);

    /// This server is active from now on.
    fn begin(&self, resumption: Resumption);

    /// All connections end at once, without a word. The end of the process would do the same, unless
    /// one of its threads waits for a disk that hangs.
    fn hang_up(&self);
}

/// What the thread of a member needs.
pub(super) struct MemberTask {
    pub(super) cluster: String,
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) times: ClusterTimes,
    /// Where clients find this server.
    pub(super) address: Option<String>,
    pub(super) is_first_start: bool,
    pub(super) broker: Broker,
    pub(super) surroundings: Box<dyn Surroundings>,
    pub(super) limiter: Arc<dyn Limiter>,
    pub(super) report: Box<dyn Fn(MemberEvent) + Send>,
}

/// Whether the thread is to end, and how.
#[derive(Default)]
struct Orders {
    leave: Mutex<Option<LeaveOrder>>,
    given: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LeaveOrder {
    /// The leader's key is given up, if it is this server's.
    HandOver,
    /// It is left as it is.
    Abandon,
}

impl Orders {
    /// Waits for an order until `until`.
    fn wait(&self, until: BootTime) -> Option<LeaveOrder> {
        let mut leave = self.leave.lock();
        loop {
            let left = BootTime::now().until(until);
            if leave.is_some() || left.is_zero() {
                return *leave;
            }
            leave = self.given.wait_timeout(leave, left).0;
        }
    }
}

/// A server that is a member of a cluster, as long as this exists.
pub struct Member {
    orders: Arc<Orders>,
    reader: ClusterReader,
    thread: Option<Thread>,
    handed_over: Arc<Mutex<Result<(), String>>>,
}

impl Member {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started, or there are no random numbers.
    pub(super) fn start(task: MemberTask) -> io::Result<Self> {
        let (orders, reader) = (Arc::new(Orders::default()), ClusterReader::new(&task.cluster));
        let handed_over = Arc::new(Mutex::new(Ok(())));
        let running = RunningMember {
            keys: Keys::new(&task.cluster),
            server: random_id()?.to_string(),
            settings: None,
            has_joined: false,
            observation: Observation::default(),
            orders: orders.clone(),
            reader: reader.clone(),
            logged: None,
            handed_over: handed_over.clone(),
            task,
        };
        let _blocked = SignalsBlocked::new()?;
        let thread = Thread::start(c"lockd-cluster", STACK_BYTES, move || running.run())?;
        Ok(Self { orders, reader, thread: Some(thread), handed_over })
    }

    /// Reads what this server knows of its cluster.
    #[must_use]
    pub fn reader(&self) -> ClusterReader {
        self.reader.clone()
    }

    /// Whether this server is the active one.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.reader.read().is_active
    }

    /// Leaves the cluster, and if this server is the active one, lets another one take over at once.
    /// To be called when the broker is shut and all clients have been told, or will not be.
    ///
    /// # Errors
    /// If etcd has not answered: then the next server takes over only after the leader timeout.
    pub fn hand_over(mut self) -> Result<(), String> {
        self.end(LeaveOrder::HandOver);
        self.handed_over.lock().clone()
    }

    fn end(&mut self, order: LeaveOrder) {
        self.orders.leave.lock().get_or_insert(order);
        self.orders.given.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end(LeaveOrder::Abandon);
    }
}

/// What the thread has.
struct RunningMember {
    task: MemberTask,
    keys: Keys,
    /// A random id of this process.
    server: String,
    /// The revision of the settings, once they have been found to be this server's.
    settings: Option<i64>,
    /// Whether they have ever been found to be this server's.
    has_joined: bool,
    observation: Observation,
    orders: Arc<Orders>,
    reader: ClusterReader,
    /// When it was last logged that etcd does not answer.
    logged: Option<BootTime>,
    handed_over: Arc<Mutex<Result<(), String>>>,
}

/// What a standby does next.
enum StandbyStep {
    GoOn,
    TakeOver { seen: Seen, settings: i64 },
}

impl RunningMember {
    fn run(mut self) {
        log::info!("this server is a standby of the cluster {}", self.task.cluster);
        let ended = self.wait_as_standby();
        self.reader.note_end();
        if let Some(event) = ended {
            (self.task.report)(event);
        }
    }

    /// Looks until this server is active; then it says so, until that ends. `None` if it was told
    /// to leave.
    fn wait_as_standby(&mut self) -> Option<MemberEvent> {
        loop {
            match self.look() {
                Ok(StandbyStep::GoOn) => self.note_etcd(None),
                Ok(StandbyStep::TakeOver { seen, settings }) => {
                    self.note_etcd(None);
                    match self.take_over(seen, settings) {
                        // Another server has been faster, or the settings have changed.
                        Ok(None) => self.settings = None,
                        Ok(Some(leadership)) => return self.be_active(leadership),
                        Err(error) => self.note_etcd(Some(&error)),
                    }
                }
                Err(StandbyError::NotYet) => {}
                // What etcd refuses may be put right there. But of a server that has never joined,
                // nobody would notice that it only waits.
                Err(StandbyError::Asked(error)) if error.is_permanent && !self.has_joined => {
                    return Some(MemberEvent::Refused(error.text));
                }
                Err(StandbyError::Asked(error)) => self.note_etcd(Some(&error.text)),
                Err(StandbyError::Refused(reason)) => return Some(MemberEvent::Refused(reason)),
            }
            if self.orders.wait(BootTime::now() + self.task.times.look_interval()).is_some() {
                return None;
            }
        }
    }

    /// Looks once at the leader's key.
    fn look(&mut self) -> Result<StandbyStep, StandbyError> {
        let limit = self.task.times.request_limit();
        let settings = self.check_settings(limit)?;
        let found = self.task.consensus.read_key(&self.keys.leader, limit)?;
        let seen = match &found {
            Some(found) => Seen::Leader(found.revision),
            None => {
                let term = self.task.consensus.read_key(&self.keys.term, limit)?;
                Seen::NoLeader { term: term.map_or(0, |term| term.revision) }
            }
        };
        let age = self.observation.see(seen, BootTime::now());
        let key = found.and_then(|found| LeaderKey::parse(&found.value));
        // The settings may have been deleted, and written anew, while the active server was there.
        let of_leader = key.as_ref().map_or(Duration::ZERO, LeaderKey::leader_timeout);
        let is_vacated = key.as_ref().is_some_and(|key| key.vacated);
        match key.as_ref().filter(|_| !is_vacated) {
            Some(key) => self.note_leader(key),
            None => {
                self.reader.note_vacant();
                self.task.surroundings.set_active_elsewhere(None);
            }
        }
        if is_vacated || age >= self.task.times.take_over_after(of_leader) {
            return Ok(StandbyStep::TakeOver { seen, settings });
        }
        Ok(StandbyStep::GoOn)
    }

    fn note_leader(&self, key: &LeaderKey) {
        let address = key.address.as_deref();
        if self.reader.note_leader(&key.server, key.epoch, address) {
            let place = address.unwrap_or("a server without an address");
            let run = key.epoch.map_or_else(String::new, |epoch| format!(" (run {epoch})"));
            log::info!("the active server of the cluster {} is {place}{run}", self.task.cluster);
        }
        self.task.surroundings.set_active_elsewhere(address);
    }

    /// The revision of the cluster's settings, which are those of this server. Writes them if there
    /// are none.
    fn check_settings(&mut self, limit: Duration) -> Result<i64, StandbyError> {
        if let Some(revision) = self.settings {
            return Ok(revision);
        }
        self.task.consensus.check(limit)?;
        let own = ClusterSettings::of(&self.task.times);
        let key = &self.keys.settings;
        if let Some(found) = self.task.consensus.read_key(key, limit)? {
            own.check(&found.value).map_err(StandbyError::Refused)?;
            (self.settings, self.has_joined) = (Some(found.revision), true);
            return Ok(found.revision);
        }
        let new = Condition { key, revision: 0 };
        let value = own.encode();
        self.task.consensus.transact(&[new], &[Write::Put { key, value: &value }], limit)?;
        // It may be another server's: the next look finds out.
        Err(StandbyError::NotYet)
    }

    fn take_over(&self, seen: Seen, settings: i64) -> Result<Option<Leadership>, String> {
        let key = LeaderKey::new(self.server.clone(), self.task.address.clone(), &self.task.times);
        let MemberTask { consensus, times, limiter, .. } = &self.task;
        let (consensus, limiter) = (consensus.clone(), limiter.clone());
        Leadership::take_over(consensus, self.keys.clone(), *times, limiter, key, (seen, settings))
    }

    /// Begins to be active, and is, until that ends. `None` if the server was told to leave.
    fn be_active(&mut self, mut leadership: Leadership) -> Option<MemberEvent> {
        match self.activate(&mut leadership) {
            Ok(Some(keeper)) => (self.task.report)(MemberEvent::TookOver(keeper)),
            Ok(None) => return None,
            Err(event) => {
                self.silence(&leadership);
                return Some(event);
            }
        }
        let ended = self.stay_active(&mut leadership);
        if ended.is_some() {
            self.silence(&leadership);
        }
        ended
    }

    /// From now on this server says nothing more to anybody.
    fn silence(&self, leadership: &Leadership) {
        leadership.silence();
        self.task.surroundings.hang_up();
    }

    /// Reads and writes what the new run needs, and lets broker and server begin. `None` if the
    /// server was told to leave meanwhile.
    fn activate(&mut self, leadership: &mut Leadership) -> Result<Option<Keeper>, MemberEvent> {
        let activation = Activation {
            consensus: self.task.consensus.clone(),
            keys: self.keys.clone(),
            term: leadership.term(),
            dead_peer_timeout: self.task.times.dead_peer_timeout,
            is_first_start: self.task.is_first_start,
            limit: self.task.times.request_limit(),
        };
        loop {
            match activation.prepare() {
                Ok((store, next)) => {
                    leadership.set_epoch(store.epoch);
                    let address = self.task.address.as_deref();
                    self.reader.note_leader(&self.server, Some(store.epoch), address);
                    let keeper = Activation::begin(&self.task.broker, store, next);
                    let keeper = keeper.map_err(|error| MemberEvent::Over(error.to_string()))?;
                    self.reader.note_active(leadership.limit());
                    self.task.surroundings.begin(keeper.resumption());
                    return Ok(Some(keeper));
                }
                Err(NotActivated::Never(text)) => return Err(MemberEvent::Refused(text)),
                Err(NotActivated::NotYet(text)) => self.note_etcd(Some(&text)),
            }
            if self.orders.wait(BootTime::now() + self.task.times.look_interval()).is_some() {
                return Ok(None);
            }
            self.renew_if_due(leadership)?;
        }
    }

    fn stay_active(&mut self, leadership: &mut Leadership) -> Option<MemberEvent> {
        loop {
            match self.orders.wait(leadership.due().min(leadership.gives_up())) {
                Some(LeaveOrder::HandOver) => {
                    *self.handed_over.lock() = leadership.vacate();
                    return None;
                }
                Some(LeaveOrder::Abandon) => return None,
                None => {}
            }
            if let Err(event) = self.renew_if_due(leadership) {
                return Some(event);
            }
            self.reader.note_active(leadership.limit());
        }
    }

    /// Says that this server is active, if it is time to.
    ///
    /// # Errors
    /// If its time is over.
    fn renew_if_due(&mut self, leadership: &mut Leadership) -> Result<(), MemberEvent> {
        let mut failure = None;
        if BootTime::now() >= leadership.due() {
            match leadership.renew() {
                Renewal::Renewed => self.note_etcd(None),
                Renewal::Failed(text) => {
                    self.note_etcd(Some(&text));
                    failure = Some(text);
                }
                Renewal::Superseded(text) => return Err(MemberEvent::Over(text)),
            }
        }
        if BootTime::now() < leadership.gives_up() {
            return Ok(());
        }
        let seconds = self.task.times.give_up().as_secs_f64();
        let why = failure
            .or_else(|| self.reader.read().etcd_error)
            .unwrap_or_else(|| "this process was not run".to_owned());
        Err(MemberEvent::Over(format!("etcd has not confirmed for {seconds} s that it is active: {why}")))
    }

    /// Logs when etcd stops to answer, now and then while it does not, and when it answers again.
    fn note_etcd(&mut self, error: Option<&str>) {
        let before = self.reader.note_etcd(error);
        let now = BootTime::now();
        match (before, error) {
            (None, None) => {}
            (Some(_), None) if self.logged.take().is_some() => log::info!("etcd answers again"),
            (Some(_), None) => {}
            (_, Some(error)) => {
                if self.logged.is_none_or(|logged| logged.until(now) >= LOG_INTERVAL) {
                    self.logged = Some(now);
                    log::warn!("etcd: {}", error.strip_prefix("etcd: ").unwrap_or(error));
                }
            }
        }
    }
}

/// Why a standby could not look.
enum StandbyError {
    /// Etcd has refused or not answered.
    Asked(ConsensusError),
    /// The settings are just being written.
    NotYet,
    /// The settings are others.
    Refused(String),
}

impl From<ConsensusError> for StandbyError {
    fn from(error: ConsensusError) -> Self {
        Self::Asked(error)
    }
}

/// Ends the process by the kernel.
#[derive(Default)]
pub(super) struct KernelLimiter(Mutex<Option<ProcessLimit>>);

impl Limiter for KernelLimiter {
    fn end_at(&self, limit: BootTime) -> io::Result<()> {
        let mut process = self.0.lock();
        match &mut *process {
            Some(process) => process.move_to(limit),
            None => {
                *process = Some(ProcessLimit::begin(limit)?);
                Ok(())
            }
        }
    }

    fn silence(&self) {
        process_limit::silence();
    }
}
