//! The shell around the rules: lanes and the table behind their mutexes, the sessions, and who is told
//! what. Takes locks, reads the clock, calls observers; decides nothing.
//!
//! Locks, in the order in which they may be taken: the table's, then one lane's, then the sessions'.
//! Never two lanes, never the table from within a lane. Observers are told of decisions under the
//! table's lock, and deliver after it is let go.

use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use slab::Slab;

use super::admission::check_set;
use super::clock;
use super::fair::FairMutex;
use super::gate::{Asker, Closed, Gate};
use super::hasher::NameHasher;
use super::held::Part;
use super::lane::{Fast, FastRelease, KeyRef, Lane};
use super::name::{Key, Space};
use super::outcome::{AcquireError, Attempt, Inspection, Mode, Outcome, ReleaseError, Released};
use super::session::{Observer, SessionInfo, Wait};
use super::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, IS_EXPLORED, Mutex, RwLock};
use super::table::{Answer, Decision, HashedKey, Idle, Patience, Slot, Step, Table, Ticket};
use super::tokens::Tokens;
use super::{LimitGauges, Limits, MARKS_PER_LANE, Session};

/// How many parts the names are spread over. More than cores, so that two threads rarely meet, and so
/// that a part is small: what holds one up (growing its table, above all) is over soon.
pub(super) const LANES: usize = if IS_EXPLORED { 2 } else { 64 };

/// How many locks or waits of one session are ended in one go at the table.
pub(super) const END_AT_DESK: usize = if IS_EXPLORED { 1 } else { 64 };

/// A request for more names than these stands back behind others that are large.
const FEW: usize = 16;

/// How many names are looked at and granted in one go to those who wait, and those of one request more.
const GRANT_AT_ONCE: usize = if IS_EXPLORED { 1 } else { 256 };

/// Alone on its cache line, and on the pair of lines that a CPU fetches together: for what threads change
/// all the time, and would take away from each other along with whatever stands beside it.
#[repr(align(128))]
pub(super) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub(super) struct LaneCell {
    pub(super) lane: Mutex<Lane>,
    /// The number of locks in the lane, for the limit on all of them: read without the mutex.
    pub(super) held: AtomicUsize,
}

/// The table and whom its decisions concern.
pub(super) struct Desk {
    pub(super) table: Table,
    seats: Vec<Option<Seat>>,
    // Kept for their capacity.
    decided: Vec<Decision>,
    idle: Vec<Idle>,
}

#[derive(Clone)]
pub(super) struct Seat {
    info: Arc<SessionInfo>,
    observer: Arc<dyn Observer>,
}

pub(super) struct Inner {
    hasher: NameHasher,
    pub(super) lanes: Box<[Apart<LaneCell>]>,
    pub(super) desk: Apart<FairMutex<Desk>>,
    /// Held by whoever has much to do at the desk, so that of all who have one at a time is in the way of
    /// others. Taken before the desk.
    pub(super) much: FairMutex<()>,
    /// The number of locks in the table.
    pub(super) desk_held: AtomicUsize,
    pub(super) sessions: Apart<RwLock<Slab<Arc<SessionInfo>>>>,
    session_ids: AtomicU64,
    pub(super) tokens: Apart<Tokens>,
    pub(super) limits: LimitGauges,
    pub(super) gate: Gate,
    /// Whether it is measured how long locks are held.
    pub(super) measures_holds: AtomicBool,
}

impl Inner {
    pub(super) fn new(limits: Limits, tokens: Tokens, grace: Option<Duration>) -> Self {
        let lane = || Mutex::new(Lane::new(MARKS_PER_LANE));
        let cell = || Apart(LaneCell { lane: lane(), held: AtomicUsize::new(0) });
        let desk = Desk { table: Table::default(), seats: Vec::new(), decided: Vec::new(), idle: Vec::new() };
        Self {
            hasher: NameHasher::new(),
            lanes: std::iter::repeat_with(cell).take(LANES).collect(),
            desk: Apart(FairMutex::new(desk)),
            much: FairMutex::new(()),
            desk_held: AtomicUsize::new(0),
            sessions: Apart(RwLock::new(Slab::new())),
            session_ids: AtomicU64::new(1),
            tokens: Apart(tokens),
            limits: LimitGauges::new(limits),
            gate: Gate::new(grace),
            measures_holds: AtomicBool::new(false),
        }
    }

    #[expect(clippy::expect_used, reason = "four billion sessions at once would need terabytes")]
    pub(super) fn open(
        self: &Arc<Self>,
        address: impl FnOnce(u64) -> String,
        observer: Arc<dyn Observer>,
    ) -> Session {
        let id = self.session_ids.fetch_add(1, Relaxed);
        let mut sessions = self.sessions.write();
        let vacant = sessions.vacant_entry();
        let slot = Slot::try_from(vacant.key()).expect("fewer than 2^32 sessions");
        let info = Arc::new(SessionInfo::new(id, slot, address(id)));
        vacant.insert(info.clone());
        drop(sessions);
        let mut desk = self.desk.lock();
        let at = slot as usize;
        if at >= desk.seats.len() {
            desk.seats.resize(at + 1, None);
        }
        desk.seats[at] = Some(Seat { info: info.clone(), observer });
        drop(desk);
        Session { broker: self.clone(), info }
    }

    pub(super) fn key<'a>(&self, space: Space, name: &'a [u8]) -> KeyRef<'a> {
        KeyRef { space, name, hash: self.hasher.hash(space, name) }
    }

    /// The number of the lane of `hash`.
    fn lane_of(&self, hash: u64) -> usize {
        // The lane itself takes the lower half.
        (hash >> 32) as usize % LANES
    }

    /// Runs `work` on the lane of `hash`.
    pub(super) fn in_lane<R>(
        &self,
        hash: u64,
        asker: Asker<'_>,
        work: impl FnOnce(&mut Lane) -> R,
    ) -> Result<R, Closed> {
        self.in_cell(&self.lanes[self.lane_of(hash)], asker, work)
    }

    pub(super) fn in_cell<R>(
        &self,
        cell: &LaneCell,
        asker: Asker<'_>,
        work: impl FnOnce(&mut Lane) -> R,
    ) -> Result<R, Closed> {
        let mut lane = cell.lane.lock();
        self.gate.pass(asker)?;
        let sentinel = self.gate.watch();
        let result = work(&mut lane);
        cell.held.store(lane.held_in_all(), Relaxed);
        sentinel.all_is_well();
        Ok(result)
    }

    /// Runs `work` on the table after it has adopted `keys`; then gives back to the lanes what it is
    /// done with, and tells observers. If many are to be granted by it, others are let in meanwhile.
    pub(super) fn at_desk<'k, R>(
        &self,
        keys: impl IntoIterator<Item = &'k HashedKey>,
        asker: Asker<'_>,
        work: impl FnOnce(&mut Table, &mut Step<'_>) -> R,
    ) -> Result<R, Closed> {
        self.at_desk_with(false, keys, asker, work)
    }

    /// The same, also for one who has `much` to do there.
    pub(super) fn at_desk_with<'k, R>(
        &self,
        much: bool,
        keys: impl IntoIterator<Item = &'k HashedKey>,
        asker: Asker<'_>,
        work: impl FnOnce(&mut Table, &mut Step<'_>) -> R,
    ) -> Result<R, Closed> {
        let work = |table: &mut Table, step: &mut Step<'_>| {
            // If there is more to settle already, whoever came upon it is at it; or was, until an observer
            // panicked. So a little of it is done here.
            let is_first = !table.is_unsettled();
            let result = work(table, step);
            if !is_first {
                table.settle_rest(step);
            }
            (result, is_first && table.is_unsettled())
        };
        let (result, mut is_unsettled) = self.at_desk_once(much, keys, asker, work)?;
        while is_unsettled {
            is_unsettled = self.at_desk_once(false, &[], Asker::Broker, |table, step| {
                table.settle_rest(step);
                table.is_unsettled()
            })?;
        }
        Ok(result)
    }

    fn at_desk_once<'k, R>(
        &self,
        much: bool,
        keys: impl IntoIterator<Item = &'k HashedKey>,
        asker: Asker<'_>,
        work: impl FnOnce(&mut Table, &mut Step<'_>) -> R,
    ) -> Result<R, Closed> {
        let one_at_a_time = much.then(|| self.much.lock_in_turn());
        let mut guard = match asker {
            // What the broker has to do itself, it does some at a time, and lets others in between.
            Asker::Broker => self.desk.lock_in_turn(),
            _ => self.desk.lock(),
        };
        self.gate.pass(asker)?;
        let sentinel = self.gate.watch();
        let desk = &mut *guard;
        for key in keys {
            let lane = self.lane_of(key.hash);
            let hand_over = |content: &mut Lane| {
                let (hold, orphaned) = content.defer(key.as_ref())?;
                if let Some((slot, ..)) = hold
                    && let Some(Some(seat)) = desk.seats.get(slot as usize)
                {
                    seat.info.held.hand_over(lane);
                }
                Some((hold, orphaned))
            };
            if let Some((hold, orphaned)) = self.in_cell(&self.lanes[lane], Asker::Broker, hand_over)? {
                desk.table.adopt(key, hold, orphaned);
            }
        }
        let limits = self.limits.get();
        let mut step = Step {
            now: clock::now(),
            tokens: &self.tokens,
            limits: &limits,
            granting: self.gate.is_open(),
            room: GRANT_AT_ONCE,
            decided: &mut desk.decided,
            idle: &mut desk.idle,
        };
        let result = work(&mut desk.table, &mut step);
        for Idle { key, orphaned } in desk.idle.drain(..) {
            self.in_lane(key.hash, Asker::Broker, |lane| lane.take_back(key.as_ref(), orphaned))?;
        }
        self.desk_held.store(desk.table.holds(), Relaxed);
        let concerned = desk.tell();
        sentinel.all_is_well();
        drop(guard);
        drop(one_at_a_time);
        for observer in concerned {
            observer.deliver();
        }
        Ok(result)
    }

    pub(super) fn try_acquire(
        &self,
        info: &SessionInfo,
        space: Space,
        name: &[u8],
        mode: Mode,
    ) -> Result<Attempt, AcquireError> {
        let key = self.key(space, name);
        let lane = self.lane_of(key.hash);
        self.check_names([name])?;
        if let Err(refusal) = self.check_room(info, 1, lane) {
            // What it has it has, also when it may not have more.
            let held = self.inspect(info, space, name)?.held;
            return Err(held.map_or(refusal, AcquireError::AlreadyHeld));
        }
        let now = clock::now_coarse();
        let token = || self.tokens.next();
        let asker = Asker::Acquiring(info);
        let acquire = |content: &mut Lane| {
            let fast = content.acquire(key, info.slot, mode, now, token);
            if let Fast::Granted(_) = fast {
                info.held.add(Part::Lane(lane), 1);
            }
            fast
        };
        match self.in_cell(&self.lanes[lane], asker, acquire)? {
            Fast::Granted(grant) => Ok(Attempt::Granted(grant)),
            Fast::AlreadyHeld(held) => Err(AcquireError::AlreadyHeld(held)),
            Fast::Busy => Ok(Attempt::Busy),
            Fast::Defer => self.acquire_at_desk(info, &[(key.to_owned(), mode)], None),
        }
    }

    pub(super) fn acquire(
        &self,
        info: &SessionInfo,
        wants: &[(Key, Mode)],
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        if let [(key, mode)] = wants {
            match self.try_acquire(info, key.space, key.name.as_bytes(), *mode) {
                Ok(Attempt::Busy) | Err(AcquireError::NotYet(_)) if wait.is_some() => {}
                settled => return settled,
            }
        }
        self.check_names(wants.iter().map(|(key, _)| key.name.as_bytes()))?;
        check_set(wants)?;
        self.check_room(info, wants.len(), 0)?;
        let hashed = |(key, mode): &(Key, Mode)| {
            let hash = self.key(key.space, key.name.as_bytes()).hash;
            (HashedKey { key: key.clone(), hash }, *mode)
        };
        let wants: Vec<_> = wants.iter().map(hashed).collect();
        self.acquire_at_desk(info, &wants, wait)
    }

    fn acquire_at_desk(
        &self,
        info: &SessionInfo,
        wants: &[(HashedKey, Mode)],
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        let keys = wants.iter().map(|(key, _)| key);
        let asker = if wait.is_some() { Asker::Queueing(info) } else { Asker::Acquiring(info) };
        let answer = self.at_desk_with(wants.len() > FEW, keys, asker, |table, step| {
            let patience = wait.map(|wait| patience(step, wait));
            let answer = table.acquire(step, info.slot, wants, patience);
            if let Answer::Granted(_) = answer {
                info.held.add(Part::Table, count(wants.len()));
            }
            answer
        })?;
        self.explain(answer)
    }

    pub(super) fn convert(
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
        let answer = self.at_desk(&keys, Asker::Queueing(info), |table, step| {
            let patience = wait.map(|wait| patience(step, wait));
            table.convert(step, info.slot, &keys[0], mode, patience)
        })?;
        self.explain(answer)
    }

    pub(super) fn release(
        &self,
        info: &SessionInfo,
        space: Space,
        name: &[u8],
    ) -> Result<Released, ReleaseError> {
        let key = self.key(space, name);
        let asker = Asker::Releasing(info);
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
            FastRelease::Defer => self.release_at_desk(info, &key.to_owned())?.ok_or(ReleaseError::NotHeld),
        }
    }

    fn release_at_desk(&self, info: &SessionInfo, key: &HashedKey) -> Result<Option<Released>, Closed> {
        self.at_desk(&[], Asker::Releasing(info), |table, step| {
            let released = table.release(step, info.slot, key);
            if released == Some(Released::Hold) {
                info.held.subtract(Part::Table, 1);
            }
            released
        })
    }

    pub(super) fn cancel(&self, info: &SessionInfo, ticket: Ticket) -> bool {
        let cancel = |table: &mut Table, step: &mut Step<'_>| table.cancel(step, info.slot, ticket);
        self.at_desk(&[], Asker::Releasing(info), cancel).unwrap_or(false)
    }

    pub(super) fn expire(&self, info: &SessionInfo) -> Option<Duration> {
        let expire = |table: &mut Table, step: &mut Step<'_>| {
            Some(table.expire(step, info.slot, END_AT_DESK)?.since(step.now))
        };
        self.at_desk_with(true, &[], Asker::Releasing(info), expire).ok().flatten()
    }

    pub(super) fn inspect(
        &self,
        info: &SessionInfo,
        space: Space,
        name: &[u8],
    ) -> Result<Inspection, Closed> {
        let key = self.key(space, name);
        let asker = Asker::Releasing(info);
        if let Some(seen) = self.in_lane(key.hash, asker, |lane| lane.view(key).inspect(info.slot))? {
            return Ok(seen);
        }
        // Between the lane and the table the name may have become free: then that is the answer.
        let key = key.to_owned();
        let seen = self.at_desk(&[], asker, |table, _| table.inspect(info.slot, &key))?;
        Ok(seen.unwrap_or_default())
    }

    /// Grants from now on, first of all to those who wait.
    pub(super) fn open_gate(&self) {
        if !self.gate.open() {
            return;
        }
        // Whoever queues from now on is granted what is free like at any other time. Those who stand here
        // already do so since before this takes the desk's lock for the first time.
        let mut next = Some(0);
        while let Some(first) = next {
            let some = |table: &mut Table, step: &mut Step<'_>| table.settle_from(step, first, END_AT_DESK);
            next = self.at_desk(&[], Asker::Broker, some).ok().flatten();
        }
    }

    /// Grants nothing any more, and ends every wait with [`Outcome::Stopping`].
    pub(super) fn shut(&self) {
        if self.gate.shut() {
            // Whoever has passed the gate in a lane is done there when this returns, and is counted.
            self.lanes.iter().for_each(|cell| drop(cell.lane.lock()));
            let slots: Vec<Slot> = self.sessions.read().iter().map(|(_, info)| info.slot).collect();
            for slot in slots {
                self.end_waits(slot, Outcome::Stopping);
            }
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.gate.is_broken()
    }

    fn explain(&self, answer: Answer) -> Result<Attempt, AcquireError> {
        match answer {
            Answer::Granted(grant) => Ok(Attempt::Granted(grant)),
            Answer::Busy => Ok(Attempt::Busy),
            Answer::Queued => Ok(Attempt::Queued),
            Answer::AlreadyHeld(held) => Err(AcquireError::AlreadyHeld(held)),
            Answer::AlreadyWaiting => Err(AcquireError::AlreadyWaiting),
            Answer::NotHeld => Err(AcquireError::NotHeld),
            Answer::TooManyWaits => {
                Err(AcquireError::Refused("this session waits for as many locks as it may".to_owned()))
            }
            Answer::TooTangled => {
                let text =
                    "too many sessions wait for each other to rule out that this wait would be a deadlock";
                Err(AcquireError::Refused(text.to_owned()))
            }
            Answer::Deadlock(circle) => {
                let sessions = self.sessions.read();
                let label = |&slot: &Slot| sessions.get(slot as usize).map(|info| info.label());
                Err(AcquireError::Deadlock(circle.iter().filter_map(label).collect()))
            }
        }
    }
}

impl Desk {
    /// Takes away the seat of a session that has nothing in the table any more.
    pub(super) fn vacate(&mut self, slot: Slot) -> Option<Seat> {
        self.seats.get_mut(slot as usize).and_then(Option::take)
    }

    /// Tells observers what has been decided; returns those who now have something to deliver.
    fn tell(&mut self) -> Vec<Arc<dyn Observer>> {
        let mut concerned: Vec<Arc<dyn Observer>> = Vec::new();
        for Decision { slot, ticket, outcome, acquired } in self.decided.drain(..) {
            let Some(Some(seat)) = self.seats.get(slot as usize) else { continue };
            seat.info.held.add(Part::Table, count(acquired));
            seat.observer.decided(ticket, outcome);
            if !concerned.last().is_some_and(|last| Arc::ptr_eq(last, &seat.observer)) {
                concerned.push(seat.observer.clone());
            }
        }
        concerned
    }
}

/// A number of names of one request, of which there are few.
fn count(names: usize) -> u32 {
    u32::try_from(names).unwrap_or(u32::MAX)
}

fn patience(step: &Step<'_>, wait: Wait) -> Patience {
    Patience { ticket: wait.ticket, deadline: wait.limit.map(|limit| step.now.after(limit)) }
}
