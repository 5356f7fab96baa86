//! The shell around the rules: lanes and the table behind their mutexes, and what each call of a session does with
//! them. Takes locks and reads the clock; decides nothing.
//!
//! Locks, in the order in which they may be taken: `bulk`, the table's, then one lane's, then the sessions'.
//! Never two lanes, never the table from within a lane.

use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::broker::clock;
use crate::broker::fast_lane::{Fast, FastRelease, KeyRef, Lane};
use crate::broker::hasher::NameHasher;
use crate::broker::name::{Key, Space};
use crate::broker::outcome::{
    AcquireError, Attempt, Cycle, Grant, Inspection, Mode, Outcome, ReleaseError, Released,
};
use crate::broker::rules::{Answer, HashedKey, Step, Table, Ticket, WaitSpec};
use crate::broker::session::{Observer, SessionInfo, Wait};
use crate::broker::shell::admission::check_set;
use crate::broker::shell::fifo::FifoMutex;
use crate::broker::shell::held::Part;
use crate::broker::shell::lifecycle::{Closed, Intent, Lifecycle};
use crate::broker::shell::registry::Registry;
use crate::broker::shell::turns::{Contended, count};
use crate::broker::tokens::Tokens;
use crate::broker::{LimitGauges, Limits, MARKS_PER_LANE, ObservedSession};
use crate::os::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, IS_EXPLORED, Mutex};

/// How many parts the names are spread over. More than cores, so that two threads rarely meet, and so
/// that a part is small: what holds one up (growing its table, above all) is over soon.
pub(in crate::broker) const LANES: usize = if IS_EXPLORED { 2 } else { 64 };

/// Alone on its cache line, and on the pair of lines that a CPU fetches together: for what threads change
/// all the time, and would take away from each other along with whatever stands beside it.
#[repr(align(128))]
pub(in crate::broker) struct CachePadded<T>(T);

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub(in crate::broker) struct LaneCell {
    pub(in crate::broker) lane: Mutex<Lane>,
    /// The number of locks in the lane, for the limit on all of them: read without the mutex.
    pub(in crate::broker) held: AtomicUsize,
}

pub(in crate::broker) struct Inner {
    hasher: NameHasher,
    pub(in crate::broker) lanes: Box<[CachePadded<LaneCell>]>,
    pub(in crate::broker) contended: CachePadded<FifoMutex<Contended>>,
    /// Held for a turn at the table with much to do, so that of those there is one at a time.
    pub(in crate::broker) bulk: FifoMutex<()>,
    /// The number of locks in the table.
    pub(in crate::broker) table_held: AtomicUsize,
    pub(in crate::broker) sessions: CachePadded<Registry>,
    session_ids: AtomicU64,
    pub(in crate::broker) tokens: CachePadded<Tokens>,
    pub(in crate::broker) limits: LimitGauges,
    pub(in crate::broker) gate: Lifecycle,
    /// Whether it is measured how long locks are held.
    pub(in crate::broker) measures_holds: AtomicBool,
}

impl Inner {
    pub(in crate::broker) fn new(limits: Limits, tokens: Tokens, grace: Option<Duration>) -> Self {
        let lane = || Mutex::new(Lane::new(MARKS_PER_LANE));
        let cell = || CachePadded(LaneCell { lane: lane(), held: AtomicUsize::new(0) });
        Self {
            hasher: NameHasher::new(),
            lanes: std::iter::repeat_with(cell).take(LANES).collect(),
            contended: CachePadded(FifoMutex::new(Contended::default())),
            bulk: FifoMutex::new(()),
            table_held: AtomicUsize::new(0),
            sessions: CachePadded(Registry::new()),
            session_ids: AtomicU64::new(1),
            tokens: CachePadded(tokens),
            limits: LimitGauges::new(limits),
            gate: Lifecycle::new(grace),
            measures_holds: AtomicBool::new(false),
        }
    }

    pub(in crate::broker) fn open(
        self: &Arc<Self>,
        address: impl FnOnce(u64) -> String,
        observer: Arc<dyn Observer>,
    ) -> ObservedSession {
        let id = self.session_ids.fetch_add(1, Relaxed);
        let address = address(id);
        let info = self.sessions.register(|slot| SessionInfo::new(id, slot, address), observer);
        ObservedSession { broker: self.clone(), info }
    }

    pub(in crate::broker) fn key<'a>(&self, space: Space, name: &'a [u8]) -> KeyRef<'a> {
        KeyRef { space, name, hash: self.hasher.hash(space, name) }
    }

    /// The number of the lane of `hash`.
    pub(in crate::broker) fn lane_of(&self, hash: u64) -> usize {
        // The lane itself takes the lower half.
        (hash >> 32) as usize % LANES
    }

    /// Runs `work` on the lane of `hash`.
    pub(in crate::broker) fn in_lane<R>(
        &self,
        hash: u64,
        asker: Intent<'_>,
        work: impl FnOnce(&mut Lane) -> R,
    ) -> Result<R, Closed> {
        self.in_cell(&self.lanes[self.lane_of(hash)], asker, work)
    }

    pub(in crate::broker) fn in_cell<R>(
        &self,
        cell: &LaneCell,
        asker: Intent<'_>,
        work: impl FnOnce(&mut Lane) -> R,
    ) -> Result<R, Closed> {
        let mut lane = cell.lane.lock();
        self.gate.pass(asker)?;
        let sentinel = self.gate.watch();
        let result = work(&mut lane);
        cell.held.store(lane.held_in_all(), Relaxed);
        sentinel.disarm();
        Ok(result)
    }

    pub(in crate::broker) fn try_acquire(
        &self,
        info: &SessionInfo,
        space: Space,
        name: &[u8],
        mode: Mode,
    ) -> Result<Grant, AcquireError> {
        let key = self.key(space, name);
        let lane = self.lane_of(key.hash);
        self.check_names([name])?;
        self.check_room(info, key, 1)?;
        let now = clock::now_coarse();
        let token = || self.tokens.next();
        let asker = Intent::Acquiring(info);
        let acquire = |content: &mut Lane| {
            let fast = content.acquire(key, info.slot, mode, now, token);
            if let Fast::Granted(_) = fast {
                info.held.add(Part::Lane(lane), 1);
            }
            fast
        };
        match self.in_cell(&self.lanes[lane], asker, acquire)? {
            Fast::Granted(grant) => Ok(grant),
            Fast::AlreadyHeld(held) => Err(AcquireError::AlreadyHeld(held)),
            Fast::Busy => Err(AcquireError::TimedOut),
            Fast::Defer => match self.acquire_contended(info, &[(key.to_owned(), mode)], None)? {
                Attempt::Granted(grant) => Ok(grant),
                Attempt::Queued => unreachable!("a request without a wait is not queued"),
            },
        }
    }

    pub(in crate::broker) fn acquire(
        &self,
        info: &SessionInfo,
        wants: &[(Key, Mode)],
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        self.check_names(wants.iter().map(|(key, _)| key.name.as_bytes()))?;
        check_set(wants.iter().map(|(key, _)| (key.space, &key.name)))?;
        let hashed = |(key, mode): &(Key, Mode)| {
            let hash = self.key(key.space, key.name.as_bytes()).hash;
            (HashedKey { key: key.clone(), hash }, *mode)
        };
        let wants: Vec<_> = wants.iter().map(hashed).collect();
        self.check_room(info, wants[0].0.as_ref(), wants.len())?;
        self.acquire_contended(info, &wants, wait)
    }

    fn acquire_contended(
        &self,
        info: &SessionInfo,
        wants: &[(HashedKey, Mode)],
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        let keys = wants.iter().map(|(key, _)| key);
        let asker = if wait.is_some() { Intent::Queueing(info) } else { Intent::Acquiring(info) };
        let answer = self.with_table(keys, asker, |table, step| {
            let patience = wait.map(|wait| patience(step, wait));
            let answer = table.acquire(step, info.slot, wants, patience);
            if let Answer::Granted(_) = answer {
                info.held.add(Part::Table, count(wants.len()));
            }
            answer
        })?;
        self.explain(answer)
    }

    pub(in crate::broker) fn convert(
        &self,
        info: &SessionInfo,
        space: Space,
        name: &[u8],
        mode: Mode,
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        self.check_names([name])?;
        let keys = [self.key(space, name).to_owned()];
        // During the grace nobody holds anything: then that is the answer, whether one would wait or not.
        let answer = self.with_table(&keys, Intent::Queueing(info), |table, step| {
            let patience = wait.map(|wait| patience(step, wait));
            table.convert(step, info.slot, &keys[0], mode, patience)
        })?;
        self.explain(answer)
    }

    pub(in crate::broker) fn release(
        &self,
        info: &SessionInfo,
        space: Space,
        name: &[u8],
    ) -> Result<Released, ReleaseError> {
        let key = self.key(space, name);
        let asker = Intent::Releasing(info);
        let lane = self.lane_of(key.hash);
        let now = self.end_of_hold();
        let release = |content: &mut Lane| {
            let fast = content.release(key, info.slot, now);
            if let FastRelease::Released = fast {
                info.held.subtract(Part::Lane(lane), 1);
            }
            fast
        };
        match self.in_cell(&self.lanes[lane], asker, release)? {
            FastRelease::Released => Ok(Released::Hold),
            FastRelease::NotHeld => Err(ReleaseError::NotHeld),
            // Should the name have left the table by now, then this session did not hold it.
            FastRelease::Defer => self.release_contended(info, &key.to_owned())?.ok_or(ReleaseError::NotHeld),
        }
    }

    fn release_contended(&self, info: &SessionInfo, key: &HashedKey) -> Result<Option<Released>, Closed> {
        self.with_table(&[], Intent::Releasing(info), |table, step| {
            let released = table.release(step, info.slot, key);
            if released == Some(Released::Hold) {
                info.held.subtract(Part::Table, 1);
            }
            released
        })
    }

    pub(in crate::broker) fn cancel(&self, info: &SessionInfo, ticket: Ticket) -> bool {
        let cancel = |table: &mut Table, step: &mut Step<'_>| table.cancel(step, info.slot, ticket);
        self.with_table(&[], Intent::Releasing(info), cancel).unwrap_or(false)
    }

    pub(in crate::broker) fn expire(&self, info: &SessionInfo) -> Option<Duration> {
        let expire =
            |table: &mut Table, step: &mut Step<'_>| Some(table.expire(step, info.slot)?.since(step.now));
        self.with_table(&[], Intent::Releasing(info), expire).ok().flatten()
    }

    pub(in crate::broker) fn inspect(
        &self,
        info: &SessionInfo,
        space: Space,
        name: &[u8],
    ) -> Result<Inspection, Closed> {
        let key = self.key(space, name);
        let asker = Intent::Releasing(info);
        if let Some(seen) = self.in_lane(key.hash, asker, |lane| lane.view(key).inspect(info.slot))? {
            return Ok(seen);
        }
        // Between the lane and the table the name may have become free: then that is the answer.
        let key = key.to_owned();
        let seen = self.with_table(&[], asker, |table, _| table.inspect(info.slot, &key))?;
        Ok(seen.unwrap_or_default())
    }

    /// Grants from now on, first of all to those who wait.
    pub(in crate::broker) fn end_grace(&self) {
        if !self.gate.open() {
            return;
        }
        // Whoever queues from now on is granted what is free like at any other time. Those who wait already do so
        // since before this takes the table's lock for the first time. Should the broker fail, there is nothing
        // more to open.
        let mut next = Some(0);
        let _ = self.until_done(Intent::Broker, |table, step| {
            next = next.and_then(|first| table.unsettle_from(step, first))
        });
    }

    /// Grants nothing any more, and ends every wait with [`Outcome::Stopping`].
    pub(in crate::broker) fn shut(&self) {
        if self.gate.shut() {
            // Whoever has passed the gate in a lane is done there when this returns, and is counted.
            self.lanes.iter().for_each(|cell| drop(cell.lane.lock()));
            for slot in self.sessions.slots() {
                self.end_waits(slot, Outcome::Stopping);
            }
        }
    }

    pub(in crate::broker) fn is_broken(&self) -> bool {
        self.gate.is_broken()
    }

    fn explain(&self, answer: Answer) -> Result<Attempt, AcquireError> {
        match answer {
            Answer::Granted(grant) => Ok(Attempt::Granted(grant)),
            Answer::Busy => Err(AcquireError::TimedOut),
            Answer::Queued => Ok(Attempt::Queued),
            Answer::AlreadyHeld(held) => Err(AcquireError::AlreadyHeld(held)),
            Answer::AlreadyWaiting => Err(AcquireError::AlreadyWaiting),
            Answer::NotHeld => Err(AcquireError::NotHeld),
            Answer::TooManyWaits => {
                Err(AcquireError::Refused("this session waits for as many locks as it may".to_owned()))
            }
            // Any other request has found room in a bulk turn.
            Answer::TooLarge => {
                let text =
                    "too many sessions wait for each other to rule out that this wait would be a deadlock";
                Err(AcquireError::Refused(text.to_owned()))
            }
            Answer::Deadlock(circle) => {
                let shown = circle.iter().take(Cycle::SHOWN_MAX);
                let infos: Vec<_> = shown.filter_map(|&slot| self.sessions.info(slot)).collect();
                Err(AcquireError::Deadlock(Box::new(Cycle {
                    sessions: infos.iter().map(|info| info.label()).collect(),
                    addresses: infos.iter().map(|info| info.address().to_owned()).collect(),
                    size: circle.len(),
                })))
            }
        }
    }
}

fn patience(step: &Step<'_>, wait: Wait) -> WaitSpec {
    WaitSpec { ticket: wait.ticket, deadline: wait.limit.map(|limit| step.now.after(limit)) }
}
