//! How a run begins, as far as that depends on what the last one has left: the number of the run,
//! its fencing tokens, its grace, and which sessions may resume in it. Pure but for the wall clock
//! and random keys; writes nothing.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::time::Duration;

use super::record::{Record, RunEnd, SessionsRecord};
use super::tombstones::Tombstones;
use crate::broker::Broker;
use crate::os::Keepalive;
use crate::server::resume::secret_key::SecretKey;
use crate::wire::message::ResumeId;

/// The number of tokens that are reserved in advance. They last for minutes at any rate that a
/// server can reach, so a disk may be slow for that long; and they are few enough that tokens stay
/// below 2^53 through millions of restarts.
pub(super) const TOKENS_RESERVED: u64 = 1 << 30;

/// The timeout that is in effect: a server raises shorter ones to the minimum.
pub(super) fn effective(dead_peer_timeout: Duration) -> Duration {
    dead_peer_timeout.max(Keepalive::DEAD_PEER_TIMEOUT_MIN)
}

/// Why nothing is granted at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraceCause {
    /// The last run has not stopped cleanly.
    Unclean,
    /// The last run has stopped cleanly, while this many sessions that can resume held locks.
    Held(usize),
    /// The store is new: there may have been a server with another one.
    NewStore,
}

/// Sessions of earlier runs, which may resume in the grace.
pub(super) struct EarlierSessions {
    /// From the last run that has granted anything to the one before this.
    pub(super) epochs: Range<u64>,
    pub(super) buried: Tombstones,
    /// If these are all that hold something: those of them that have not come back.
    pub(super) awaited: Option<BTreeSet<ResumeId>>,
}

/// What a run begins with. Its record must be in the store before the broker grants anything.
pub(in crate::server) struct NextRun {
    /// The record of this run, as far as it has come.
    pub(in crate::server) record: Record,
    /// Its fencing tokens, as far as they are reserved.
    pub(in crate::server) tokens: Range<u64>,
    /// How long nothing is granted, and why.
    pub(in crate::server) grace: Option<(Duration, GraceCause)>,
    /// `None` if no session of an earlier run can resume.
    pub(super) earlier: Option<EarlierSessions>,
}

impl NextRun {
    /// The run after the one with this record; `None` is an empty store. `buried` are the
    /// tombstones in the store. With `is_first_start`, a run with an empty store has no grace.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub(in crate::server) fn after(
        last: Option<Record>,
        buried: Tombstones,
        dead_peer_timeout: Duration,
        is_first_start: bool,
    ) -> io::Result<Self> {
        let timeout = effective(dead_peer_timeout);
        let grace = grace_after(last.as_ref(), timeout, is_first_start);
        let (before, key) = match last.as_ref().and_then(|last| last.sessions.clone()) {
            Some(SessionsRecord { epoch, opened, key }) => (opened..epoch.saturating_add(1), key),
            None => (0..1, SecretKey::random()?),
        };
        let first = last.as_ref().map_or(0, |last| last.tokens_end).max(Broker::first_token_by_clock());
        let epoch = before.end;
        // A run without a grace may grant at once. Then no session of an earlier run may resume.
        let opened = if grace.is_some() { before.start } else { epoch };
        let record = Record {
            tokens_end: first.saturating_add(TOKENS_RESERVED),
            // If this run ends in its grace, the next one must still wait for the clients of the
            // last one.
            dead_peer_timeout: grace.map_or(timeout, |(grace, _)| grace.max(timeout)),
            end: RunEnd::None,
            sessions: Some(SessionsRecord { epoch, opened, key }),
        };
        let awaited = match last.map(|last| last.end) {
            Some(RunEnd::Stopped { held }) => Some(held),
            Some(RunEnd::None) | None => None,
        };
        let earlier = grace.is_some().then_some(EarlierSessions { epochs: before, buried, awaited });
        Ok(Self { tokens: first..record.tokens_end, record, grace, earlier })
    }

    /// Whether sessions of earlier runs can resume; if not, all tombstones are of no use any more.
    pub(in crate::server) fn has_earlier(&self) -> bool {
        self.earlier.is_some()
    }
}

fn grace_after(
    last: Option<&Record>,
    timeout: Duration,
    is_first_start: bool,
) -> Option<(Duration, GraceCause)> {
    match last {
        None if is_first_start => None,
        None => Some((timeout, GraceCause::NewStore)),
        Some(Record { end: RunEnd::None, dead_peer_timeout, .. }) => {
            Some((*dead_peer_timeout, GraceCause::Unclean))
        }
        Some(Record { end: RunEnd::Stopped { held }, .. }) if held.is_empty() => None,
        Some(Record { end: RunEnd::Stopped { held }, dead_peer_timeout, .. }) => {
            Some((*dead_peer_timeout, GraceCause::Held(held.len())))
        }
    }
}
