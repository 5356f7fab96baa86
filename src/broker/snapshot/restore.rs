//! A broker from a snapshot. Nothing of the snapshot is believed: what could not be the state of a
//! broker is an error, never a panic. The broker is thrown away then, before anybody has seen it.

use std::time::Duration;

use crate::broker::clock::Stamp;
use crate::broker::fast_lane::{KeyRef, Lane};
use crate::broker::hasher::lane_of;
use crate::broker::histogram::Histogram;
use crate::broker::lifecycle::Intent;
use crate::broker::limits::Limits;
use crate::broker::name::{LockName, Space};
use crate::broker::rules::{
    EntrySnapshot, Hold, HolderView, RequestSnapshot, Slot, Table, TableCounts, TableSnapshot,
};
use crate::broker::session::ObservedSession;
use crate::broker::session_info::{Observer, SessionInfo};
use crate::broker::shell::Shell;
use crate::broker::snapshot::types::{
    BrokerSnapshot, BrokerSnapshotError, CountsSnapshot, HistogramSnapshot, HolderSnapshot, LockSnapshot,
    NameSnapshot, SessionSnapshot, WaitSnapshot,
};
use crate::broker::tokens::{TOKENS_END, Tokens};
use crate::os::sync::{Arc, Ordering};

/// Ids and counts stay below this, so that every JSON reader represents them exactly, and adding to
/// them or adding them up never overflows.
const NUMBERS_END: u64 = 1 << 53;

type Restored<T> = Result<T, BrokerSnapshotError>;

fn refused<T>(text: impl Into<String>) -> Restored<T> {
    Err(BrokerSnapshotError::new(text))
}

impl Shell {
    /// See [`Broker::restore`](crate::broker::Broker::restore).
    pub(crate) fn restore(
        snapshot: &BrokerSnapshot,
        limits: Limits,
        tokens_end: u64,
        observer_of: impl FnMut(&SessionSnapshot) -> Arc<dyn Observer>,
    ) -> Restored<(Arc<Self>, Vec<ObservedSession>)> {
        let BrokerSnapshot { sessions, locks, waits, orphaned_names, next_token, .. } = snapshot;
        if *next_token >= tokens_end.min(TOKENS_END) {
            return refused(format!("no fencing token is left: {next_token} may not be given"));
        }
        let tokens = Tokens::between(*next_token, tokens_end);
        let grace_ends = snapshot.grace_ends_nanos.map(Stamp::from_nanos);
        let shell = Arc::new(Self::new(limits, tokens, grace_ends));
        shell.session_ids.store(checked(snapshot.next_session_id)?, Ordering::Relaxed);
        shell.measures_holds.store(snapshot.counts.hold_times.is_some(), Ordering::Relaxed);
        let infos = shell.restore_sessions(snapshot, observer_of)?;
        let in_table = which_are_in_table(locks, waits)?;
        check_holders(snapshot)?;
        shell.restore_table(snapshot, &in_table, &infos)?;
        shell.restore_lanes(locks, &in_table, &infos)?;
        for NameSnapshot { space, name } in orphaned_names {
            if !shell.fill_lane(*space, name, Lane::restore_orphan)? {
                return refused(format!("{name:?} is there twice"));
            }
        }
        if cfg!(debug_assertions) {
            shell.lanes.iter().for_each(|cell| cell.lane.lock().check_invariants());
        }
        debug_assert_eq!(shell.sessions.len(), sessions.len());
        let sessions = infos.into_iter().map(|info| ObservedSession::restored(&shell, info)).collect();
        Ok((shell, sessions))
    }

    /// Registers the sessions, so that the slot of each is its index in the snapshot.
    fn restore_sessions(
        &self,
        snapshot: &BrokerSnapshot,
        mut observer_of: impl FnMut(&SessionSnapshot) -> Arc<dyn Observer>,
    ) -> Restored<Vec<Arc<SessionInfo>>> {
        let mut ids: Vec<u64> = snapshot.sessions.iter().map(|session| session.id).collect();
        ids.sort_unstable();
        if ids.last().is_some_and(|&highest| highest >= snapshot.next_session_id) {
            return refused("a session has an id that is still to be given");
        }
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return refused("two sessions have the same id");
        }
        let mut infos = Vec::with_capacity(snapshot.sessions.len());
        for session in &snapshot.sessions {
            let SessionSnapshot { id, address, name, rank: _ } = session;
            let made = |slot| SessionInfo::new(*id, slot, address.clone());
            let info = self.sessions.register(made, observer_of(session));
            if !info.set_name(name.as_deref()) {
                return refused(format!("session {id} has too long a name"));
            }
            debug_assert_eq!(info.slot as usize, infos.len());
            infos.push(info);
        }
        Ok(infos)
    }

    /// Has the lanes defer the names that the table must have, and makes the table.
    fn restore_table(
        &self,
        snapshot: &BrokerSnapshot,
        in_table: &[bool],
        infos: &[Arc<SessionInfo>],
    ) -> Restored<()> {
        let (mut entries, mut entry_of) = (Vec::new(), vec![usize::MAX; snapshot.locks.len()]);
        for (index, lock) in snapshot.locks.iter().enumerate().filter(|(index, _)| in_table[*index]) {
            let LockSnapshot { space, name, orphaned, holders } = lock;
            if !self.fill_lane(*space, name, |lane, key| lane.defer(key, None).is_some())? {
                return refused(format!("{name:?} is there twice"));
            }
            entry_of[index] = entries.len();
            let holders = holders.iter().map(view).collect::<Restored<_>>()?;
            let key = self.key(*space, name.as_bytes()).to_owned();
            entries.push(EntrySnapshot { key, orphaned: *orphaned, holders });
        }
        let mut requests = Vec::with_capacity(snapshot.waits.len());
        for wait in &snapshot.waits {
            let WaitSnapshot { session, ticket, wants, since_nanos, deadline_nanos } = wait;
            requests.push(RequestSnapshot {
                slot: slot(*session)?,
                ticket: *ticket,
                wants: wants.iter().map(|want| (entry_of[want.lock], want.mode)).collect(),
                since: Stamp::from_nanos(*since_nanos),
                deadline: deadline_nanos.map(Stamp::from_nanos),
            });
        }
        for holder in entries.iter().flat_map(|entry| &entry.holders) {
            infos[holder.slot as usize].holdings.add_in_table(1);
        }
        let ranks = snapshot.sessions.iter().map(|session| session.rank).collect();
        let content = TableSnapshot { entries, requests, ranks, counts: counts(&snapshot.counts)? };
        let granting = snapshot.grace_ends_nanos.is_none();
        let table = Table::restore(content, granting).map_err(BrokerSnapshotError::new)?;
        self.table_held.store(table.holds(), Ordering::Relaxed);
        self.contended.lock().table = table;
        Ok(())
    }

    /// Gives the names that one session holds and no session waits for to their lanes.
    fn restore_lanes(
        &self,
        locks: &[LockSnapshot],
        in_table: &[bool],
        infos: &[Arc<SessionInfo>],
    ) -> Restored<()> {
        let mut held = Vec::with_capacity(locks.len());
        for (lock, _) in locks.iter().zip(in_table).filter(|(_, in_table)| !**in_table) {
            let LockSnapshot { name, holders, .. } = lock;
            match holders.as_slice() {
                [holder] => held.push((lock, view(holder)?)),
                _ => return refused(format!("nobody holds {name:?} or waits for it")),
            }
        }
        // The list of what a session holds in a lane is in the order of the tokens.
        held.sort_by_key(|(_, holder)| holder.hold.token);
        for (LockSnapshot { space, name, orphaned, .. }, HolderView { slot, mode, hold }) in held {
            let info = &infos[slot as usize];
            let is_new = self.fill_lane(*space, name, |lane, key| {
                let number = lane_of(key.hash);
                info.holdings.note_lane(number);
                lane.restore_hold(key, info.holder(number), mode, hold, *orphaned)
            })?;
            if !is_new {
                return refused(format!("{name:?} is there twice"));
            }
        }
        Ok(())
    }

    fn fill_lane<R>(
        &self,
        space: Space,
        name: &LockName,
        fill: impl FnOnce(&mut Lane, KeyRef<'_>) -> R,
    ) -> Restored<R> {
        let key = self.key(space, name.as_bytes());
        let filled = self.in_lane(lane_of(key.hash), Intent::Broker, |lane| fill(lane, key));
        filled.or_else(|_| refused("the new broker has failed"))
    }
}

/// For each lock whether it must be in the table: it has waiters or several holders.
fn which_are_in_table(locks: &[LockSnapshot], waits: &[WaitSnapshot]) -> Restored<Vec<bool>> {
    let mut in_table: Vec<bool> = locks.iter().map(|lock| lock.holders.len() > 1).collect();
    for want in waits.iter().flat_map(|wait| &wait.wants) {
        match in_table.get_mut(want.lock) {
            Some(in_table) => *in_table = true,
            None => return refused("a request waits for a lock that is not there"),
        }
    }
    Ok(in_table)
}

/// What is the same for locks in the table and in lanes.
fn check_holders(snapshot: &BrokerSnapshot) -> Restored<()> {
    let sessions = snapshot.sessions.len();
    for LockSnapshot { name, holders, .. } in &snapshot.locks {
        for HolderSnapshot { session, token, .. } in holders {
            if *session >= sessions {
                return refused(format!("{name:?} is held by a session that is not there"));
            }
            if *token >= snapshot.next_token {
                return refused(format!("the token {token} of {name:?} is still to be given"));
            }
        }
    }
    if snapshot.waits.iter().any(|wait| wait.session >= sessions) {
        return refused("a session waits that is not there");
    }
    Ok(())
}

fn slot(session: usize) -> Restored<Slot> {
    Slot::try_from(session).or_else(|_| refused("there are too many sessions"))
}

fn view(holder: &HolderSnapshot) -> Restored<HolderView> {
    let HolderSnapshot { session, mode, token, since_nanos } = *holder;
    let hold = Hold { token, since: Stamp::from_nanos(since_nanos) };
    Ok(HolderView { slot: slot(session)?, mode, hold })
}

/// All counts, for the table: no lane has counted anything yet.
fn counts(counts: &CountsSnapshot) -> Restored<TableCounts> {
    Ok(TableCounts {
        grants: checked(counts.grants)?,
        waits: checked(counts.waits)?,
        timeouts: checked(counts.timeouts)?,
        cancels: checked(counts.cancels)?,
        deadlocks: checked(counts.deadlocks)?,
        orphans_exclusive: checked(counts.orphans)?,
        orphans_shared: checked(counts.shared_orphans)?,
        wait_times: histogram(&counts.wait_times)?,
        hold_times: counts.hold_times.as_ref().map(histogram).transpose()?.unwrap_or_default(),
    })
}

fn histogram(times: &HistogramSnapshot) -> Restored<Histogram> {
    let HistogramSnapshot { counts, sum_secs, sum_nanos } = times;
    for &count in counts {
        checked(count)?;
    }
    if *sum_nanos >= 1_000_000_000 {
        return refused(format!("{sum_nanos} ns are more than a second"));
    }
    Ok(Histogram::from_parts(*counts, Duration::new(*sum_secs, *sum_nanos)))
}

fn checked(number: u64) -> Restored<u64> {
    if number >= NUMBERS_END {
        return refused(format!("{number} is more than there can be"));
    }
    Ok(number)
}
