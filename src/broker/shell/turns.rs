//! Turns at the table: threads get it in the order in which they came, and each does a bounded amount of work
//! before it lets others in. Knows the mutexes and who must be told; what the table decides it does not know.
//!
//! - An ordinary turn has room for [`TURN_BUDGET`]. What turns out to need more is *bulk*: it is done, or gone on with, in
//!   a turn with room for [`BULK_BUDGET`], and those come one at a time. So whatever N sessions ask for, others wait for
//!   one bulk turn of theirs and N small ones, and the sessions that ask for much wait for each other.
//! - A turn may leave names unsettled, whose waiters could be granted. The first thread that does so settles them,
//!   and what others leave meanwhile, in further turns: one thread at a time, and nobody else has to.

use crate::broker::clock;
use crate::broker::rules::{BULK_BUDGET, Decision, HashedKey, Idle, NAME_COST, Step, TURN_BUDGET, Table};
use crate::broker::shell::core::Inner;
use crate::broker::shell::held::Part;
use crate::broker::shell::lifecycle::{Closed, Intent};
use crate::broker::shell::registry::Registered;
use crate::os::sync::Ordering::{Acquire, Relaxed};
use crate::os::sync::{Arc, MutexGuard};

/// The table, and what is taken down of its decisions.
#[derive(Default)]
pub(in crate::broker) struct Contended {
    pub(in crate::broker) table: Table,
    // Kept for their capacity.
    decided: Vec<Decision>,
    idle: Vec<Idle>,
}

/// What a turn came to.
struct Turn<R> {
    result: R,
    /// The result counts for nothing: there was not enough room.
    is_exhausted: bool,
    /// How many names were unsettled before it and are after it.
    unsettled: (usize, usize),
}

/// Whose names a turn settles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settle {
    /// Those of its own event.
    Own,
    /// All that are left.
    All,
}

impl Inner {
    /// Runs `work` on the table after it has adopted `keys`; then gives back to the lanes what it is done with, and
    /// tells observers. If there was not enough room, `work` is run again with more.
    pub(in crate::broker) fn with_table<'k, R, K>(
        &self,
        keys: K,
        asker: Intent<'_>,
        mut work: impl FnMut(&mut Table, &mut Step<'_>) -> R,
    ) -> Result<R, Closed>
    where
        K: IntoIterator<Item = &'k HashedKey, IntoIter: ExactSizeIterator> + Clone,
    {
        if keys.clone().into_iter().len() <= TURN_BUDGET / NAME_COST {
            let turn = self.turn(TURN_BUDGET, None, keys.clone(), asker, &mut work)?;
            if !turn.is_exhausted {
                return Ok(turn.result);
            }
        }
        let bulk = self.bulk.lock();
        Ok(self.turn(BULK_BUDGET, Some(bulk), keys, asker, &mut work)?.result)
    }

    /// Runs `work` again and again until it has not been short of room.
    pub(in crate::broker) fn until_done(
        &self,
        asker: Intent<'_>,
        mut work: impl FnMut(&mut Table, &mut Step<'_>),
    ) -> Result<(), Closed> {
        let mut is_done = false;
        while !is_done {
            is_done = self.with_table(&[], asker, |table, step| {
                work(table, step);
                !step.is_exhausted
            })?;
        }
        Ok(())
    }

    /// Takes a turn, and settles what it has left unsettled.
    fn turn<'k, R>(
        &self,
        room: usize,
        bulk: Option<MutexGuard<'_, ()>>,
        keys: impl IntoIterator<Item = &'k HashedKey>,
        asker: Intent<'_>,
        work: &mut impl FnMut(&mut Table, &mut Step<'_>) -> R,
    ) -> Result<Turn<R>, Closed> {
        let mut concerned = Vec::new();
        let turn = self.turn_locked(room, Settle::Own, keys, asker, work, &mut concerned)?;
        drop(bulk);
        // Also of what another thread has decided, and may not have come to tell: what the owner of the session
        // says because of this call must come after it.
        if let Some(info) = asker.session()
            && info.untold.load(Acquire) != 0
        {
            concerned.extend(self.sessions.get(info.slot));
        }
        self.tell(&mut concerned);
        let (before, mut left) = turn.unsettled;
        while before == 0 && left > 0 {
            let rest = self.turn_locked(
                BULK_BUDGET,
                Settle::All,
                &[],
                Intent::Broker,
                &mut |_, _| (),
                &mut concerned,
            )?;
            self.tell(&mut concerned);
            left = rest.unsettled.1;
        }
        Ok(turn)
    }

    /// The part of a turn for which the table is locked. Adds whoever must be told of something.
    fn turn_locked<'k, R>(
        &self,
        room: usize,
        settle: Settle,
        keys: impl IntoIterator<Item = &'k HashedKey>,
        asker: Intent<'_>,
        work: &mut impl FnMut(&mut Table, &mut Step<'_>) -> R,
        concerned: &mut Vec<Arc<Registered>>,
    ) -> Result<Turn<R>, Closed> {
        let mut guard = self.contended.lock();
        self.gate.pass(asker)?;
        let sentinel = self.gate.watch();
        let Contended { table, decided, idle } = &mut *guard;
        for key in keys {
            self.adopt(table, key)?;
        }
        let limits = self.limits.get();
        let mut step = Step {
            now: clock::now(),
            tokens: &self.tokens,
            limits: &limits,
            granting: self.gate.is_open(),
            budget: room,
            is_exhausted: false,
            decided,
            idle,
        };
        let before = table.unsettled();
        let result = work(table, &mut step);
        let is_exhausted = step.is_exhausted;
        step.budget = room;
        table.settle(&mut step, if settle == Settle::All { 0 } else { before });
        let unsettled = (before, table.unsettled());
        // Before the names are anybody's in their lanes: who gets one there has been told first.
        self.note(decided, concerned);
        for Idle { key, orphaned } in idle.drain(..) {
            self.in_lane(key.hash, Intent::Broker, |lane| lane.take_back(key.as_ref(), orphaned))?;
        }
        self.table_held.store(table.holds(), Relaxed);
        sentinel.disarm();
        Ok(Turn { result, is_exhausted, unsettled })
    }

    /// Takes the name out of its lane, with the session that holds it.
    fn adopt(&self, table: &mut Table, key: &HashedKey) -> Result<(), Closed> {
        let lane = self.lane_of(key.hash);
        let deferred = self.in_cell(&self.lanes[lane], Intent::Broker, |content| {
            let (hold, orphaned) = content.defer(key.as_ref())?;
            if let Some(info) = hold.and_then(|(slot, ..)| self.sessions.info(slot)) {
                info.held.hand_over(lane);
            }
            Some((hold, orphaned))
        })?;
        if let Some((hold, orphaned)) = deferred {
            table.adopt(key, hold, orphaned);
        }
        Ok(())
    }

    /// Notes what was decided, for the sessions it concerns.
    fn note(&self, decided: &mut Vec<Decision>, concerned: &mut Vec<Arc<Registered>>) {
        for Decision { slot, ticket, outcome, acquired } in decided.drain(..) {
            let Some(session) = self.sessions.get(slot) else { continue };
            session.info.held.add(Part::Table, count(acquired));
            session.note(ticket, outcome);
            if !concerned.last().is_some_and(|last| Arc::ptr_eq(last, &session)) {
                concerned.push(session);
            }
        }
    }

    /// Tells these sessions what was noted for them. An observer that panics breaks the broker: what it had to say,
    /// and what others have to hear, would be lost.
    fn tell(&self, concerned: &mut Vec<Arc<Registered>>) {
        let sentinel = self.gate.watch();
        for session in concerned.drain(..) {
            session.tell();
            session.deliver();
        }
        sentinel.disarm();
    }
}

/// A number of names of one request, of which there are few.
pub(in crate::broker) fn count(names: usize) -> u32 {
    u32::try_from(names).unwrap_or(u32::MAX)
}
