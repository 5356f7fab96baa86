//! The snapshot of a broker that no thread uses. Changes nothing.

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::fast_lane::LaneView;
use crate::broker::histogram::Histogram;
use crate::broker::name::{LockName, Space};
use crate::broker::registry::RegisteredSession;
use crate::broker::rules::{EntrySnapshot, HolderView, RequestSnapshot, Slot, TableSnapshot};
use crate::broker::shell::Shell;
use crate::broker::snapshot::types::{
    BrokerSnapshot, BrokerSnapshotError, CountsSnapshot, HistogramSnapshot, HolderSnapshot, LockSnapshot,
    NameSnapshot, SessionSnapshot, WaitSnapshot, WantSnapshot,
};
use crate::os::sync::{Arc, Ordering};

/// The indices that sessions have in the snapshot.
struct SessionIndices(HashMap<Slot, usize>);

impl SessionIndices {
    fn of(&self, slot: Slot) -> Result<usize, BrokerSnapshotError> {
        self.0.get(&slot).copied().ok_or_else(|| {
            BrokerSnapshotError::new(format!("a lock belongs to session {slot}, which is not open"))
        })
    }

    fn holder(&self, view: HolderView) -> Result<HolderSnapshot, BrokerSnapshotError> {
        let HolderView { slot, mode, hold } = view;
        let (session, since_nanos) = (self.of(slot)?, hold.since.nanos());
        Ok(HolderSnapshot { session, mode, token: hold.token, since_nanos })
    }
}

impl Shell {
    /// See [`Broker::snapshot`](crate::broker::Broker::snapshot).
    pub(crate) fn snapshot(&self) -> Result<BrokerSnapshot, BrokerSnapshotError> {
        if self.lifecycle.is_shut() {
            return Err(BrokerSnapshotError::new("the broker is stopping, or has failed"));
        }
        let sessions = self.sessions.all();
        check_at_rest(&sessions)?;
        let indices = sessions.iter().zip(0..).map(|(session, index)| (session.info.slot, index));
        let indices = SessionIndices(indices.collect());
        let stats = self.stats();
        let table = {
            let cell = self.contended.lock();
            if cell.table.unsettled() > 0 {
                return Err(BrokerSnapshotError::new("some waiters could be granted a lock"));
            }
            cell.table.snapshot()
        };
        let TableSnapshot { entries, requests, ranks, counts: _ } = table;
        let rank = |slot: Slot| ranks.get(slot as usize).copied().unwrap_or(0);
        let mut locks = Vec::new();
        for EntrySnapshot { key, orphaned, holders } in entries {
            let holders = holders.into_iter().map(|view| indices.holder(view)).collect::<Result<_, _>>()?;
            locks.push(LockSnapshot { space: key.key.space, name: key.key.name, orphaned, holders });
        }
        let waits = requests.into_iter().map(|request| wait(&indices, request)).collect::<Result<_, _>>()?;
        self.add_locks_of_lanes(&indices, &mut locks)?;
        Ok(BrokerSnapshot {
            sessions: sessions.iter().map(|one| session(one, rank(one.info.slot))).collect(),
            locks,
            waits,
            orphaned_names: self.orphaned_names(),
            next_token: self.next_token(),
            next_session_id: self.session_ids.load(Ordering::Relaxed),
            grace_ends_nanos: self.lifecycle.grace_ends().map(|ends| ends.nanos()),
            counts: CountsSnapshot {
                grants: stats.grants,
                waits: stats.waits,
                timeouts: stats.timeouts,
                cancels: stats.cancels,
                deadlocks: stats.deadlocks,
                orphans: stats.orphans,
                shared_orphans: stats.shared_orphans,
                wait_times: histogram(&stats.wait_times),
                hold_times: self.measures_holds.load(Ordering::Relaxed).then(|| histogram(&stats.hold_times)),
            },
        })
    }

    fn add_locks_of_lanes(
        &self,
        indices: &SessionIndices,
        locks: &mut Vec<LockSnapshot>,
    ) -> Result<(), BrokerSnapshotError> {
        for cell in &self.lanes {
            let mut unknown = Ok(());
            cell.lane.lock().scan(0, usize::MAX, |space, name, view| {
                let LaneView::One { slot, mode, hold, orphaned } = view else { return };
                match indices.holder(HolderView { slot, mode, hold }) {
                    Ok(holder) => {
                        let (name, holders) = (name.clone(), vec![holder]);
                        locks.push(LockSnapshot { space, name, orphaned, holders });
                    }
                    Err(error) => unknown = Err(error),
                }
            });
            unknown?;
        }
        Ok(())
    }

    /// The orphaned names of all lanes. What each lane would forget first comes first: a lane of the
    /// new broker that gets more of them than it may have then forgets the oldest, as nearly as
    /// that can be told.
    fn orphaned_names(&self) -> Vec<NameSnapshot> {
        let mut by_age = Vec::new();
        for cell in &self.lanes {
            let lane = cell.lane.lock();
            let names: Vec<(Space, &LockName)> = lane.orphaned_names().collect();
            let newer = (0..names.len()).rev();
            let named = |(space, name): (Space, &LockName)| NameSnapshot { space, name: name.clone() };
            by_age.extend(newer.zip(names.into_iter().map(named)));
        }
        by_age.sort_by_key(|(newer, _)| std::cmp::Reverse(*newer));
        by_age.into_iter().map(|(_, name)| name).collect()
    }
}

/// While no thread is in a call, no session is about to end, and every outcome has been told.
fn check_at_rest(sessions: &[Arc<RegisteredSession>]) -> Result<(), BrokerSnapshotError> {
    for session in sessions {
        if session.info.ended.load(Ordering::Acquire) {
            return Err(BrokerSnapshotError::new(format!("session {} is about to end", session.info.id())));
        }
        if session.info.pending_notifications.load(Ordering::Acquire) != 0 {
            let text = format!("session {} has not been told how its waits ended", session.info.id());
            return Err(BrokerSnapshotError::new(text));
        }
    }
    Ok(())
}

fn session(session: &RegisteredSession, rank: i64) -> SessionSnapshot {
    let info = &session.info;
    let name = info.name().map(|name| name.to_vec());
    SessionSnapshot { id: info.id(), address: info.address().to_string(), name, rank }
}

fn wait(indices: &SessionIndices, request: RequestSnapshot) -> Result<WaitSnapshot, BrokerSnapshotError> {
    let RequestSnapshot { slot, ticket, wants, since, deadline } = request;
    Ok(WaitSnapshot {
        session: indices.of(slot)?,
        ticket,
        wants: wants.into_iter().map(|(lock, mode)| WantSnapshot { lock, mode }).collect(),
        since_nanos: since.nanos(),
        deadline_nanos: deadline.map(|deadline| deadline.nanos()),
    })
}

fn histogram(times: &Histogram) -> HistogramSnapshot {
    let sum: Duration = times.sum();
    HistogramSnapshot { counts: times.counts(), sum_secs: sum.as_secs(), sum_nanos: sum.subsec_nanos() }
}
