//! A broker as data. Sessions and locks are referred to by their indices in [`BrokerSnapshot`].
//! Times are nanoseconds on the monotonic clock of the machine (`CLOCK_MONOTONIC`), which goes on
//! when a process replaces itself by another program.
//!
//! A later version may add fields that have defaults. A field that this version does not know is an
//! error: it may be what keeps a lock from being granted.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::broker::histogram::Histogram;
use crate::broker::mode::Mode;
use crate::broker::name::{LockName, Space};
use crate::broker::rules::Ticket;
use crate::broker::snapshot::as_data;

/// The whole state of a broker, see [`Broker::snapshot`](crate::broker::Broker::snapshot).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSnapshot {
    /// The open sessions.
    pub sessions: Vec<SessionSnapshot>,
    /// The locks that are held or waited for, in no order.
    pub locks: Vec<LockSnapshot>,
    /// The requests that wait, in the order in which they came.
    pub waits: Vec<WaitSnapshot>,
    /// The free names whose last exclusive holder vanished without releasing. The ones that the
    /// broker would forget first come first.
    pub orphaned_names: Vec<NameSnapshot>,
    /// Higher than every token so far, and not higher than the first one that may not be given.
    pub next_token: u64,
    /// The id of the session that is opened next.
    pub next_session_id: u64,
    /// When the grace is expected to end. `None`: the broker is in no grace.
    #[serde(deserialize_with = "as_data::value_or_null")]
    pub grace_ends_nanos: Option<u64>,
    /// What the broker has counted since its start.
    pub counts: CountsSnapshot,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSnapshot {
    /// See [`SessionInfo::id`](crate::broker::SessionInfo::id).
    pub id: u64,
    /// See [`SessionInfo::address`](crate::broker::SessionInfo::address).
    pub address: String,
    /// The name that it has registered.
    #[serde(with = "as_data::hex_or_null")]
    pub name: Option<Vec<u8>>,
    /// Higher than the rank of every session that it waits for, and no other session's. 0 if it has
    /// never waited, and never held a lock that others wanted.
    pub rank: i64,
}

/// A lock that is held or waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockSnapshot {
    /// The space of the name.
    #[serde(with = "as_data::space")]
    pub space: Space,
    /// The name.
    #[serde(with = "as_data::hex")]
    pub name: LockName,
    /// Whether the last exclusive holder vanished without releasing. If the lock is held
    /// exclusively: whether the holder before the present one did.
    pub orphaned: bool,
    /// The sessions that hold it, in no order. None if it is only waited for.
    pub holders: Vec<HolderSnapshot>,
}

/// One session that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolderSnapshot {
    /// The index of the session.
    pub session: usize,
    /// The mode in which it holds the lock.
    #[serde(with = "as_data::mode")]
    pub mode: Mode,
    /// The token of its grant.
    pub token: u64,
    /// When it was granted the lock.
    pub since_nanos: u64,
}

/// A request that waits. If the session holds the lock that it wants, the request is a conversion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitSnapshot {
    /// The index of the session.
    pub session: usize,
    /// What the session calls this wait by.
    pub ticket: Ticket,
    /// The locks that it wants, all at once.
    pub wants: Vec<WantSnapshot>,
    /// When it began to wait.
    pub since_nanos: u64,
    /// When the wait ends; `None`: never.
    #[serde(deserialize_with = "as_data::value_or_null")]
    pub deadline_nanos: Option<u64>,
}

/// One of the locks that a request wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantSnapshot {
    /// The index of the lock.
    pub lock: usize,
    /// The mode in which it wants the lock.
    #[serde(with = "as_data::mode")]
    pub mode: Mode,
}

/// A name that nobody holds and nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameSnapshot {
    /// The space of the name.
    #[serde(with = "as_data::space")]
    pub space: Space,
    /// The name.
    #[serde(with = "as_data::hex")]
    pub name: LockName,
}

/// The counters of [`Stats`](crate::broker::Stats).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountsSnapshot {
    /// See [`Stats::grants`](crate::broker::Stats::grants).
    pub grants: u64,
    /// See [`Stats::waits`](crate::broker::Stats::waits).
    pub waits: u64,
    /// See [`Stats::timeouts`](crate::broker::Stats::timeouts).
    pub timeouts: u64,
    /// See [`Stats::cancels`](crate::broker::Stats::cancels).
    pub cancels: u64,
    /// See [`Stats::deadlocks`](crate::broker::Stats::deadlocks).
    pub deadlocks: u64,
    /// See [`Stats::orphans`](crate::broker::Stats::orphans).
    pub orphans: u64,
    /// See [`Stats::shared_orphans`](crate::broker::Stats::shared_orphans).
    pub shared_orphans: u64,
    /// See [`Stats::wait_times`](crate::broker::Stats::wait_times).
    pub wait_times: HistogramSnapshot,
    /// See [`Stats::hold_times`](crate::broker::Stats::hold_times). `None`: they are not measured.
    #[serde(deserialize_with = "as_data::value_or_null")]
    pub hold_times: Option<HistogramSnapshot>,
}

/// A [`Histogram`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistogramSnapshot {
    /// How many durations are in each range, the shortest ones first.
    pub counts: [u64; Histogram::RANGES],
    /// The sum of the durations, in whole seconds.
    pub sum_secs: u64,
    /// The rest of the sum, in nanoseconds.
    pub sum_nanos: u32,
}

/// Why there is no snapshot of a broker, or no broker of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSnapshotError(String);

impl BrokerSnapshotError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for BrokerSnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokerSnapshotError {}
