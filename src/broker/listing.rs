//! Listing locks, in pages: never more than a bounded number of names or holders are looked at while
//! anybody else has to wait. A listing is therefore no snapshot: a lock that comes or goes while it
//! is made may or may not be in it; one that stays throughout is, once.

use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::broker::clock::{self, Stamp};
use crate::broker::fast_lane::{Lane, LaneView};
use crate::broker::name::{Key, LockName, Space};
use crate::broker::outcome::Mode;
use crate::broker::rules::{HashedKey, Slot};
use crate::broker::session::SessionInfo;
use crate::broker::shell::core::Inner;
use crate::broker::shell::lifecycle::Intent;
use crate::os::sync::Arc;

/// How many names, holders or waiters are looked at in one go.
const AT_ONCE: usize = 512;

/// How many names are copied in one go for one who is shown all of them, and may stop reading meanwhile.
const COPIED_AT_ONCE: usize = 64;

/// The most bytes that the names of a page have together: who has a page of long names has a page of fewer.
const PAGE_NAME_BYTES: usize = 256 << 10;

/// After how many holders and waiters a page ends, though there may be more names: every lock can have as
/// many as there are sessions.
const PAGE_MAX: usize = 8192;

/// A lock that is held or waited for.
#[derive(Clone, Debug)]
pub struct LockInfo {
    /// Its space and name.
    pub key: Key,
    /// How it is held; `None` if it was free when looked at.
    pub mode: Option<Mode>,
    /// The last exclusive holder vanished without releasing; with an exclusive holder, the one before it.
    pub orphaned: bool,
    /// Who holds it, in the order in which they acquired it.
    pub holders: Vec<HolderInfo>,
    /// Who waits for it, in the order in which they will be served.
    pub waiters: Vec<WaiterInfo>,
}

/// One holder of a lock.
#[derive(Clone, Debug)]
pub struct HolderInfo {
    /// Who it is.
    pub session: Arc<SessionInfo>,
    /// The token of its grant.
    pub token: u64,
    /// For how long it has held the lock, to some milliseconds.
    pub held_for: Duration,
}

/// One waiter for a lock.
#[derive(Clone, Debug)]
pub struct WaiterInfo {
    /// Who it is.
    pub session: Arc<SessionInfo>,
    /// The mode it asks for.
    pub mode: Mode,
    /// For how long it has waited, to some milliseconds.
    pub waiting_for: Duration,
}

/// One page of locks.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the order of their names.
    pub locks: Vec<LockInfo>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// Which locks a page is to show.
#[derive(Clone, Debug)]
pub struct PageQuery {
    /// The table of names.
    pub space: Space,
    /// Only names that begin so.
    pub prefix: LockName,
    /// Only names behind this one, by the order of their bytes.
    pub after: Option<LockName>,
    /// How many, at most; 0 counts as 1. Fewer if these have many holders and waiters.
    pub limit: usize,
}

/// Picks the names of a page, which are shown to it in no order.
#[derive(Debug)]
struct PageNames<'a> {
    query: &'a PageQuery,
    first: BinaryHeap<LockName>,
    /// How many bytes these have together.
    bytes: usize,
    /// The first of the names that there is no room for.
    beyond: Option<LockName>,
}

impl<'a> PageNames<'a> {
    /// The first names that this query asks for.
    fn of(query: &'a PageQuery) -> Self {
        Self { query, first: BinaryHeap::new(), bytes: 0, beyond: None }
    }

    /// Takes a name, if it is asked for and as long as there is none before it that fills the page.
    fn add(&mut self, space: Space, name: &LockName) {
        let Self { query, first, bytes, beyond } = self;
        let is_asked_for = space == query.space
            && name.as_bytes().starts_with(query.prefix.as_bytes())
            && query.after.as_ref().is_none_or(|after| name > after);
        if !is_asked_for || beyond.as_ref().is_some_and(|beyond| name >= beyond) {
            return;
        }
        *bytes += name.as_bytes().len();
        first.push(name.clone());
        while first.len() > query.limit.max(1) || *bytes > PAGE_NAME_BYTES && first.len() > 1 {
            let Some(last) = first.pop() else { break };
            *bytes -= last.as_bytes().len();
            *beyond = Some(last);
        }
    }

    /// The names in their order, and whether there are more.
    fn finish(self) -> (Vec<LockName>, bool) {
        let mut first = self.first.into_sorted_vec();
        // One that was released and acquired meanwhile can have been met twice.
        first.dedup();
        (first, self.beyond.is_some())
    }
}

impl Inner {
    /// A page of locks in the order of their names, or of those alone that have waiters. Looks at every name
    /// there is, since names are not kept in order.
    pub(super) fn page(&self, query: &PageQuery, with_waiters: bool) -> Page {
        let mut query = query.clone();
        loop {
            let (names, mut more) = self.first_names(&query, with_waiters);
            query.after = names.last().cloned();
            let (mut locks, mut shown) = (Vec::new(), 0);
            for name in names {
                if shown >= PAGE_MAX {
                    more = true;
                    break;
                }
                let hash = self.key(query.space, name.as_bytes()).hash;
                let lock = self.lock_info(&HashedKey { key: Key { space: query.space, name }, hash });
                let lock = lock.filter(|lock| !with_waiters || !lock.waiters.is_empty());
                shown += lock.as_ref().map_or(0, |lock| lock.holders.len() + lock.waiters.len());
                locks.extend(lock);
            }
            // All of them may have gone meanwhile: then there would be none to ask on from.
            if !locks.is_empty() || !more {
                return Page { locks, more };
            }
        }
    }

    /// The first names a query asks for, and whether there are more.
    fn first_names(&self, query: &PageQuery, with_waiters: bool) -> (Vec<LockName>, bool) {
        let mut first = PageNames::of(query);
        if with_waiters {
            self.for_each_lock(|lock| {
                if !lock.waiters.is_empty() {
                    first.add(lock.key.space, &lock.key.name);
                }
                ControlFlow::<()>::Continue(())
            });
        } else {
            self.scan_names(|space, name| first.add(space, name));
        }
        first.finish()
    }

    /// Shows every lock to `each`, in no order, until it breaks off.
    pub(super) fn for_each_lock<B>(&self, mut each: impl FnMut(LockInfo) -> ControlFlow<B>) -> Option<B> {
        let mut batch: Vec<Result<LockInfo, Key>> = Vec::new();
        for cell in &self.lanes {
            let mut from = Some(0);
            while let Some(start) = from {
                let scan = |lane: &mut Lane| {
                    lane.scan(start, COPIED_AT_ONCE, |space, name, view| {
                        batch.push(self.listed_one(Key { space, name: name.clone() }, view));
                    })
                };
                from = self.in_cell(cell, Intent::Broker, scan).ok().flatten();
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

    fn scan_names(&self, mut each: impl FnMut(Space, &LockName)) {
        for cell in &self.lanes {
            let mut from = Some(0);
            while let Some(start) = from {
                let scan = |lane: &mut Lane| lane.scan(start, AT_ONCE, |space, name, _| each(space, name));
                from = self.in_cell(cell, Intent::Broker, scan).ok().flatten();
            }
        }
    }

    /// The lock as it stands; `None` if nobody is concerned with it any more.
    pub(super) fn lock_info(&self, key: &HashedKey) -> Option<LockInfo> {
        let look = |lane: &mut Lane| match lane.view(key.as_ref()) {
            LaneView::Nobody { .. } => ControlFlow::Break(None),
            LaneView::Deferred => ControlFlow::Continue(()),
            view => ControlFlow::Break(self.listed_one(key.key.clone(), view).ok()),
        };
        match self.in_lane(key.hash, Intent::Broker, look).ok()? {
            ControlFlow::Break(found) => found,
            ControlFlow::Continue(()) => self.contended_lock_info(key),
        }
    }

    /// Must be called with the lane locked, so that the holder's slot is still the holder's. Gives the key back if
    /// there is not one holder alone.
    fn listed_one(&self, key: Key, view: LaneView) -> Result<LockInfo, Key> {
        let LaneView::One { slot, mode, hold, orphaned } = view else { return Err(key) };
        let Some(session) = self.sessions.info(slot) else { return Err(key) };
        let held_for = clock::now_coarse().since(hold.since);
        let holders = vec![HolderInfo { session, token: hold.token, held_for }];
        Ok(LockInfo { key, mode: Some(mode), orphaned, holders, waiters: Vec::new() })
    }

    /// Shows every lock that the session holds to `each`, until it breaks off: lane by lane, and then what is in the
    /// table, where what leaves a lane meanwhile goes.
    pub(super) fn for_each_held<B>(
        &self,
        session: &SessionInfo,
        mut each: impl FnMut(&Key, Mode) -> ControlFlow<B>,
    ) -> Option<B> {
        let mut batch = Vec::new();
        for cell in &self.lanes {
            let mut after = None;
            loop {
                let copy = |lane: &mut Lane| {
                    lane.held_after(session.slot, after, COPIED_AT_ONCE, |space, name, mode| {
                        batch.push((Key { space, name: name.clone() }, mode));
                    })
                };
                after = self.in_cell(cell, Intent::Releasing(session), copy).ok().flatten();
                if let Some(done) = show(&mut batch, &mut each) {
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
                let held = table.held_after(session.slot, after, COPIED_AT_ONCE);
                after = held.last().map(|(id, ..)| *id);
                batch.extend(held.into_iter().map(|(_, key, mode)| (key, mode)));
                after
            });
            if let Some(done) = show(&mut batch, &mut each) {
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
        loop {
            let more = self.with_table(&[], Intent::Broker, |table, _| {
                let holders = table.holders_after(key, after, AT_ONCE);
                after = holders.last().map(|last| last.slot);
                lock.holders.extend(holders.iter().filter_map(|holder| {
                    let session = self.sessions.info(holder.slot)?;
                    let held_for = now.since(holder.hold.since);
                    Some(HolderInfo { session, token: holder.hold.token, held_for })
                }));
                holders.len() == AT_ONCE
            });
            if more != Ok(true) {
                break;
            }
        }
        // The table has them by their slots, which says nothing to anybody; tokens rise with each grant.
        lock.holders.sort_unstable_by_key(|holder| holder.token);
        self.list_waiters(key, now, &mut lock.waiters);
        Some(lock)
    }

    fn list_waiters(&self, key: &HashedKey, now: Stamp, into: &mut Vec<WaiterInfo>) {
        let mut after = None;
        loop {
            let more = self.with_table(&[], Intent::Broker, |table, _| {
                let waiters = table.waiters_after(key, after, AT_ONCE);
                after = waiters.last().map(|last| last.place);
                into.extend(waiters.iter().filter_map(|waiter| {
                    let session = self.sessions.info(waiter.slot)?;
                    Some(WaiterInfo { session, mode: waiter.mode, waiting_for: now.since(waiter.since) })
                }));
                waiters.len() == AT_ONCE
            });
            if more != Ok(true) {
                break;
            }
        }
    }
}

/// Shows what has been copied, with nothing locked.
fn show<B>(batch: &mut Vec<(Key, Mode)>, each: &mut impl FnMut(&Key, Mode) -> ControlFlow<B>) -> Option<B> {
    batch.drain(..).find_map(|(key, mode)| each(&key, mode).break_value())
}
