//! Turns at the table. Threads get the table in the order in which they asked for it, and each does
//! a bounded amount of work before it lets the next one in. Knows the mutexes and which sessions
//! must be notified; nothing about what the table decides.
//!
//! - An ordinary turn has the budget [`TURN_BUDGET`]. An event that needs more is *bulk*: it is
//!   repeated, or continued, in a turn with the budget [`BULK_BUDGET`], and there is one bulk turn
//!   at a time. So a session waits for at most one ordinary turn of each other session and one bulk
//!   turn, whatever they ask for, because bulk turns are serialized.
//! - A turn may leave names unsettled, whose waiters could be granted. The first thread that leaves
//!   some settles them, and what other threads leave meanwhile, in further turns. So only one
//!   thread at a time does this work, and the others need not.

use crate::broker::clock;
use crate::broker::fast_lane::{DeferredName, LaneView};
use crate::broker::hasher::lane_of;
use crate::broker::lifecycle::{CallRefused, Intent};
use crate::broker::outcome::Outcome;
use crate::broker::registry::RegisteredSession;
use crate::broker::rules::{
    BULK_BUDGET, Decision, FreedName, HashedKey, NAME_COST, Slot, Step, TURN_BUDGET, Table,
};
use crate::broker::session_info::{Observer, SessionInfo};
use crate::broker::shell::{Shell, TableCell};
use crate::broker::tokens::Tokens;
use crate::os::sync::Ordering::{Acquire, Relaxed};
use crate::os::sync::{Arc, MutexGuard};

/// What a turn came to.
struct TurnResult<R> {
    result: R,
    /// The budget was too small: the result means nothing.
    is_exhausted: bool,
    /// How many names were unsettled before the turn and are after it.
    unsettled: (usize, usize),
}

impl Shell {
    /// Runs `work` on the table after the table has adopted `keys` from their lanes. Then returns
    /// idle names to the lanes and notifies sessions. If the budget was too small, `work` is run
    /// again in a bulk turn.
    pub(super) fn with_table<'k, R, K>(
        &self,
        keys: K,
        intent: Intent<'_>,
        mut work: impl FnMut(&mut Table, &mut Step<'_>) -> R,
    ) -> Result<R, CallRefused>
    where
        K: IntoIterator<Item = &'k HashedKey, IntoIter: ExactSizeIterator> + Clone,
    {
        if keys.clone().into_iter().len() <= TURN_BUDGET / NAME_COST {
            let turn = self.turn(TURN_BUDGET, None, keys.clone(), intent, &mut work)?;
            if !turn.is_exhausted {
                return Ok(turn.result);
            }
        }
        let bulk = self.bulk.lock();
        Ok(self.turn(BULK_BUDGET, Some(bulk), keys, intent, &mut work)?.result)
    }

    /// Runs `work` again and again until the budget of a turn was large enough for it.
    pub(super) fn until_done(
        &self,
        intent: Intent<'_>,
        mut work: impl FnMut(&mut Table, &mut Step<'_>),
    ) -> Result<(), CallRefused> {
        let mut is_done = false;
        while !is_done {
            is_done = self.with_table(&[], intent, |table, step| {
                work(table, step);
                !step.is_exhausted
            })?;
        }
        Ok(())
    }

    /// Takes a turn, notifies sessions, and settles what the turn has left unsettled.
    fn turn<'k, R>(
        &self,
        budget: usize,
        bulk: Option<MutexGuard<'_, ()>>,
        keys: impl IntoIterator<Item = &'k HashedKey>,
        intent: Intent<'_>,
        work: &mut impl FnMut(&mut Table, &mut Step<'_>) -> R,
    ) -> Result<TurnResult<R>, CallRefused> {
        let mut concerned = Vec::new();
        let turn = self.turn_locked(budget, false, keys, intent, work, &mut concerned)?;
        drop(bulk);
        // Another thread may have decided something for the calling session and not have notified
        // it yet. The reply to this call must come after that notification.
        if let Some(info) = intent.session()
            && info.pending_notifications.load(Acquire) != 0
        {
            concerned.extend(self.sessions.get(info.slot));
        }
        self.notify(&mut concerned);
        let (before, mut left) = turn.unsettled;
        while before == 0 && left > 0 {
            let rest =
                self.turn_locked(BULK_BUDGET, true, &[], Intent::Broker, &mut |_, _| (), &mut concerned)?;
            self.notify(&mut concerned);
            left = rest.unsettled.1;
        }
        Ok(turn)
    }

    /// The part of a turn for which the table is locked. With `settle_all`, settles all unsettled
    /// names, otherwise those of its own event. Adds the sessions to notify to `concerned`.
    fn turn_locked<'k, R>(
        &self,
        budget: usize,
        settle_all: bool,
        keys: impl IntoIterator<Item = &'k HashedKey>,
        intent: Intent<'_>,
        work: &mut impl FnMut(&mut Table, &mut Step<'_>) -> R,
        concerned: &mut Vec<Arc<RegisteredSession>>,
    ) -> Result<TurnResult<R>, CallRefused> {
        let mut guard = self.contended.lock();
        self.lifecycle.check(intent)?;
        let sentinel = self.lifecycle.arm();
        let TableCell { table, tokens, decided, idle } = &mut *guard;
        debug_assert!(decided.is_empty() && idle.is_empty(), "a turn has left decisions behind");
        for key in keys {
            self.adopt(table, tokens, key)?;
        }
        let limits = self.limits.get();
        let mut step = Step {
            now: clock::now(),
            tokens,
            limits: &limits,
            granting: self.lifecycle.is_open(),
            budget,
            is_exhausted: false,
            decided,
            idle,
        };
        let before = table.unsettled();
        let result = work(table, &mut step);
        let is_exhausted = step.is_exhausted;
        step.budget = budget;
        table.settle(&mut step, if settle_all { 0 } else { before });
        let unsettled = (before, table.unsettled());
        // Before idle names return to their lanes: a session that acquires one there must have its
        // pending notifications queued by then.
        self.add_pending(decided, concerned);
        for idle in idle.drain(..) {
            self.return_to_lane(&idle, tokens.peek())?;
        }
        self.table_held.store(table.holds(), Relaxed);
        sentinel.disarm();
        Ok(TurnResult { result, is_exhausted, unsettled })
    }

    /// Moves a name from its lane to the table, with its holder and its mark.
    fn adopt(&self, table: &mut Table, tokens: &mut Tokens, key: &HashedKey) -> Result<(), CallRefused> {
        let lane = lane_of(key.hash);
        let deferred = self.in_lane(lane, Intent::Broker, |content| {
            let holder = content.holder(key.as_ref()).and_then(|slot| self.sessions.info(slot));
            let holdings = holder.as_ref().map(|info| info.holdings.in_lane(lane));
            let deferred = content.defer(key.as_ref(), holdings)?;
            if let Some(info) = holder {
                info.holdings.add_in_table(1);
            }
            debug_assert!(matches!(content.view(key.as_ref()), LaneView::Deferred));
            Some(deferred)
        })?;
        if let Some(DeferredName { holder, orphaned, next_token }) = deferred {
            debug_assert!(table.inspect(Slot::MAX, key).is_none(), "the name was in a lane and in the table");
            tokens.raise_to(next_token);
            table.adopt(key, holder, orphaned);
        }
        debug_assert!(table.inspect(Slot::MAX, key).is_some(), "the lane defers a name that is nowhere");
        Ok(())
    }

    /// Returns a name to its lane that the table has removed. Its tokens in the table were lower
    /// than `next_token`.
    fn return_to_lane(&self, idle: &FreedName, next_token: u64) -> Result<(), CallRefused> {
        self.in_lane(lane_of(idle.key.hash), Intent::Broker, |lane| {
            debug_assert!(
                matches!(lane.view(idle.key.as_ref()), LaneView::Deferred),
                "the name was in a lane and in the table"
            );
            lane.take_back(idle.key.as_ref(), idle.orphaned, next_token);
            debug_assert!(!matches!(lane.view(idle.key.as_ref()), LaneView::Deferred));
        })
    }

    /// Counts what was granted, and queues the outcomes for the sessions whose waits have ended.
    fn add_pending(&self, decided: &mut Vec<Decision>, concerned: &mut Vec<Arc<RegisteredSession>>) {
        for Decision { slot, ticket, outcome, acquired } in decided.drain(..) {
            debug_assert!(acquired == 0 || matches!(outcome, Outcome::Granted(_)));
            let Some(session) = self.sessions.get(slot) else {
                debug_assert!(false, "a wait has outlived its session");
                continue;
            };
            session.info.holdings.add_in_table(acquired);
            session.add_pending(ticket, outcome);
            if !concerned.last().is_some_and(|last| Arc::ptr_eq(last, &session)) {
                concerned.push(session);
            }
        }
    }

    /// Has another observer told how the waits of the session end. Does nothing if the session has
    /// ended.
    pub(super) fn set_observer(&self, info: &SessionInfo, observer: Arc<dyn Observer>) {
        // Another session may have the slot of one that has ended.
        let session = self.sessions.get(info.slot).filter(|session| std::ptr::eq(&*session.info, info));
        let sentinel = self.lifecycle.arm();
        if let Some(session) = session {
            session.set_observer(observer);
        }
        sentinel.disarm();
    }

    /// Notifies these sessions. If an observer panics, the broker has failed: outcomes that it and
    /// others were still to be told are lost.
    fn notify(&self, concerned: &mut Vec<Arc<RegisteredSession>>) {
        let sentinel = self.lifecycle.arm();
        for session in concerned.drain(..) {
            session.notify();
        }
        sentinel.disarm();
    }
}
