//! Lists of locks. They are copied in batches, so that a lane or the table is locked only for a
//! bounded number of names, holders or waiters at a time. So a list is no snapshot: a lock that
//! comes or goes while the list is made may or may not be in it, and one that stays throughout is
//! in it once.

use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::broker::clock;
use crate::broker::fast_lane::{Lane, LaneView};
use crate::broker::hasher::{LANES, lane_of};
use crate::broker::lifecycle::Intent;
use crate::broker::mode::Mode;
use crate::broker::name::{Key, LockName, Space};
use crate::broker::rules::{HashedKey, Slot, Table};
use crate::broker::session_info::SessionInfo;
use crate::broker::shell::Shell;
use crate::os::sync::Arc;

/// How many names, holders or waiters are examined while a lane or the table is locked.
const SCAN_BATCH: usize = 512;

/// How many locks are copied at a time for a caller that wants all of them. Fewer, since the caller
/// may stop early.
const COPY_BATCH: usize = 64;

/// How many bytes the names on one page may have together. A page of long names has fewer of them.
const PAGE_NAME_BYTES_MAX: usize = 256 << 10;

/// A page with this many holders and waiters gets no more locks: one lock can have as many as there
/// are sessions.
const PAGE_SESSIONS_MAX: usize = 8192;

/// A lock that is held or waited for.
#[derive(Clone, Debug)]
pub struct LockInfo {
    /// Its space and name.
    pub key: Key,
    /// The mode in force: of those in which it is held, the one that allows the fewest holders.
    /// `None` if no session held it at that moment.
    pub mode: Option<Mode>,
    /// The last exclusive holder vanished without releasing it. If there is an exclusive holder
    /// now, the one before it.
    pub orphaned: bool,
    /// The holders, in the order in which they acquired it.
    pub holders: Vec<HolderInfo>,
    /// The waiters, in the order in which they will be granted it.
    pub waiters: Vec<WaiterInfo>,
}

/// One holder of a lock.
#[derive(Clone, Debug)]
pub struct HolderInfo {
    /// The session that holds the lock.
    pub session: Arc<SessionInfo>,
    /// The mode in which it holds it.
    pub mode: Mode,
    /// The token of its grant.
    pub token: u64,
    /// How long it has held the lock, to within some milliseconds.
    pub held_for: Duration,
}

/// One waiter for a lock.
#[derive(Clone, Debug)]
pub struct WaiterInfo {
    /// The session that waits for the lock.
    pub session: Arc<SessionInfo>,
    /// The mode it waits for.
    pub mode: Mode,
    /// How long it has waited, to within some milliseconds.
    pub waiting_for: Duration,
}

/// One page of locks.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Ordered by name.
    pub locks: Vec<LockInfo>,
    /// Whether there are more locks after the last one.
    pub more: bool,
}

/// Which locks a page lists.
#[derive(Clone, Debug)]
pub struct PageQuery {
    /// Only names in this space.
    pub space: Space,
    /// Only names that begin with this.
    pub prefix: LockName,
    /// Only names after this one, ordered by their bytes.
    pub after: Option<LockName>,
    /// At most this many locks; 0 counts as 1. There are fewer if they have very many holders and
    /// waiters, or very long names.
    pub limit: usize,
}

/// Selects the names of a page from names that it is given in any order.
#[derive(Debug)]
struct PageNames<'a> {
    query: &'a PageQuery,
    /// The names of the page so far, the last one on top.
    first: BinaryHeap<LockName>,
    /// How many bytes these have together.
    bytes: usize,
    /// The lowest name that had no room on the page.
    beyond: Option<LockName>,
}

impl<'a> PageNames<'a> {
    /// An empty page for this query.
    fn of(query: &'a PageQuery) -> Self {
        Self { query, first: BinaryHeap::new(), bytes: 0, beyond: None }
    }

    /// Adds a name, unless the query excludes it or the page is full of names that come before it.
    fn add(&mut self, space: Space, name: &LockName) {
        let Self { query, first, bytes, beyond } = self;
        let is_wanted = space == query.space
            && name.as_bytes().starts_with(query.prefix.as_bytes())
            && query.after.as_ref().is_none_or(|after| name > after);
        if !is_wanted || beyond.as_ref().is_some_and(|beyond| name >= beyond) {
            return;
        }
        *bytes += name.as_bytes().len();
        first.push(name.clone());
        while first.len() > query.limit.max(1) || *bytes > PAGE_NAME_BYTES_MAX && first.len() > 1 {
            let Some(last) = first.pop() else { break };
            *bytes -= last.as_bytes().len();
            *beyond = Some(last);
        }
    }

    /// The names in order, and whether the query has more of them.
    fn finish(self) -> (Vec<LockName>, bool) {
        let mut first = self.first.into_sorted_vec();
        // A name that was released and acquired again meanwhile may have been added twice.
        first.dedup();
        (first, self.beyond.is_some())
    }
}

impl Shell {
    /// A page of locks ordered by name, or only of those that have waiters. Examines every name of
    /// the broker, since they are not kept in order.
    pub(super) fn page(&self, query: &PageQuery, with_waiters: bool) -> Page {
        let mut query = query.clone();
        loop {
            let (names, mut more) = self.first_names(&query, with_waiters);
            query.after = names.last().cloned();
            let (mut locks, mut shown) = (Vec::new(), 0);
            for name in names {
                if shown >= PAGE_SESSIONS_MAX {
                    more = true;
                    break;
                }
                let hash = self.key(query.space, name.as_bytes()).hash;
                let lock = self.lock_info(&HashedKey { key: Key { space: query.space, name }, hash });
                let lock = lock.filter(|lock| !with_waiters || !lock.waiters.is_empty());
                shown += lock.as_ref().map_or(0, |lock| lock.holders.len() + lock.waiters.len());
                locks.extend(lock);
            }
            // If all these locks have gone meanwhile, the page must not end here: the caller would
            // have no name to continue from.
            if !locks.is_empty() || !more {
                return Page { locks, more };
            }
        }
    }

    /// The names for a page, and whether there are more.
    fn first_names(&self, query: &PageQuery, with_waiters: bool) -> (Vec<LockName>, bool) {
        let mut first = PageNames::of(query);
        if with_waiters {
            self.for_each_lock(|lock| {
                if !lock.waiters.is_empty() {
                    first.add(lock.key.space, &lock.key.name);
                }
                ControlFlow::<()>::Continue(())
            });
            return first.finish();
        }
        for lane in 0..LANES {
            let mut from = Some(0);
            while let Some(start) = from {
                let scan =
                    |lane: &mut Lane| lane.scan(start, SCAN_BATCH, |space, name, _| first.add(space, name));
                from = self.in_lane(lane, Intent::Broker, scan).ok().flatten();
            }
        }
        first.finish()
    }

    /// Passes every lock to `each`, in no order, until `each` breaks off.
    pub(super) fn for_each_lock<B>(&self, mut each: impl FnMut(LockInfo) -> ControlFlow<B>) -> Option<B> {
        let mut batch: Vec<Result<LockInfo, Key>> = Vec::new();
        for lane in 0..LANES {
            let mut from = Some(0);
            while let Some(start) = from {
                let scan = |lane: &mut Lane| {
                    lane.scan(start, COPY_BATCH, |space, name, view| {
                        batch.push(self.single_holder_info(Key { space, name: name.clone() }, view));
                    })
                };
                from = self.in_lane(lane, Intent::Broker, scan).ok().flatten();
                for listed in batch.drain(..) {
                    let look =
                        |key: Key| self.lock_info(&self.key(key.space, key.name.as_bytes()).to_owned());
                    let Some(lock) = listed.map_or_else(look, Some) else { continue };
                    if let ControlFlow::Break(done) = each(lock) {
                        return Some(done);
                    }
                }
            }
        }
        None
    }

    /// The state of the lock now; `None` if no session holds it or waits for it.
    pub(super) fn lock_info(&self, key: &HashedKey) -> Option<LockInfo> {
        let look = |lane: &mut Lane| match lane.view(key.as_ref()) {
            LaneView::Nobody { .. } => ControlFlow::Break(None),
            LaneView::Deferred => ControlFlow::Continue(()),
            view => ControlFlow::Break(self.single_holder_info(key.key.clone(), view).ok()),
        };
        match self.in_lane(lane_of(key.hash), Intent::Broker, look).ok()? {
            ControlFlow::Break(found) => found,
            ControlFlow::Continue(()) => self.contended_lock_info(key),
        }
    }

    /// A lock with a single holder; otherwise returns the key. Must be called with the lane locked,
    /// so that the holder's slot cannot have been given to another session.
    fn single_holder_info(&self, key: Key, view: LaneView) -> Result<LockInfo, Key> {
        let LaneView::One { slot, mode, hold, orphaned } = view else { return Err(key) };
        let Some(session) = self.sessions.info(slot) else { return Err(key) };
        let held_for = clock::now_coarse().since(hold.since);
        let holders = vec![HolderInfo { session, mode, token: hold.token, held_for }];
        Ok(LockInfo { key, mode: Some(mode), orphaned, holders, waiters: Vec::new() })
    }

    /// Passes every lock that the session holds to `each`, until `each` breaks off: lane by lane,
    /// and then those in the table. In this order, since a lock can go from a lane to the table
    /// meanwhile.
    pub(super) fn for_each_held<B>(
        &self,
        session: &SessionInfo,
        mut each: impl FnMut(&Key, Mode) -> ControlFlow<B>,
    ) -> Option<B> {
        let mut batch = Vec::new();
        for lane in session.holdings.lanes() {
            let of = session.holder(lane);
            let mut after = None;
            loop {
                let copy = |lane: &mut Lane| {
                    lane.held_after(of, after, COPY_BATCH, |space, name, mode| {
                        batch.push((Key { space, name: name.clone() }, mode));
                    })
                };
                after = self.in_lane(lane, Intent::Releasing(session), copy).ok().flatten();
                if let Some(done) = pass_on(&mut batch, &mut each) {
                    return Some(done);
                }
                if after.is_none() {
                    break;
                }
            }
        }
        let mut after = None;
        loop {
            let copied = self.with_table(&[], Intent::Releasing(session), |table, _| {
                let held = table.held_after(session.slot, after, COPY_BATCH);
                after = held.last().map(|(id, ..)| *id);
                batch.extend(held.into_iter().map(|(_, key, mode)| (key, mode)));
                after
            });
            if let Some(done) = pass_on(&mut batch, &mut each) {
                return Some(done);
            }
            if !matches!(copied, Ok(Some(_))) {
                return None;
            }
        }
    }

    fn contended_lock_info(&self, key: &HashedKey) -> Option<LockInfo> {
        let now = clock::now_coarse();
        let seen = self.with_table(&[], Intent::Broker, |table, _| table.inspect(Slot::MAX, key)).ok()??;
        let mut lock = LockInfo {
            key: key.key.clone(),
            mode: seen.mode,
            orphaned: seen.orphaned,
            holders: Vec::new(),
            waiters: Vec::new(),
        };
        let mut after = None;
        self.in_batches(|table| {
            let holders = table.holders_after(key, after, SCAN_BATCH);
            after = holders.last().map(|last| last.slot);
            lock.holders.extend(holders.iter().filter_map(|holder| {
                let session = self.sessions.info(holder.slot)?;
                let held_for = now.since(holder.hold.since);
                Some(HolderInfo { session, mode: holder.mode, token: holder.hold.token, held_for })
            }));
            holders.len()
        });
        // The table orders holders by slot. Tokens rise with each grant.
        lock.holders.sort_unstable_by_key(|holder| holder.token);
        let mut after = None;
        self.in_batches(|table| {
            let waiters = table.waiters_after(key, after, SCAN_BATCH);
            after = waiters.last().map(|last| last.place);
            lock.waiters.extend(waiters.iter().filter_map(|waiter| {
                let session = self.sessions.info(waiter.slot)?;
                Some(WaiterInfo { session, mode: waiter.mode, waiting_for: now.since(waiter.since) })
            }));
            waiters.len()
        });
        Some(lock)
    }

    /// Runs `copy` with the table locked, again and again until it has copied less than a full
    /// batch.
    fn in_batches(&self, mut copy: impl FnMut(&Table) -> usize) {
        while self.with_table(&[], Intent::Broker, |table, _| copy(table)) == Ok(SCAN_BATCH) {}
    }
}

/// Passes the copied locks to `each`, with nothing locked.
fn pass_on<B>(
    batch: &mut Vec<(Key, Mode)>,
    each: &mut impl FnMut(&Key, Mode) -> ControlFlow<B>,
) -> Option<B> {
    batch.drain(..).find_map(|(key, mode)| each(&key, mode).break_value())
}
