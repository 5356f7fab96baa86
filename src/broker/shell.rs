//! The shell around the rules: the lanes and the table behind their mutexes, and the ways to get at
//! them. Decides nothing. What the calls of a session do with lanes and table is in `session.rs`.
//!
//! Locks, in the order in which they may be taken: `bulk`, the table, one lane, the sessions. Never
//! two lanes at once, and never the table while a lane is locked.

use std::ops::{Deref, Range};
use std::sync::atomic::Ordering::Relaxed;

use crate::broker::clock::Stamp;
use crate::broker::fast_lane::{KeyRef, Lane};
use crate::broker::fifo::FifoMutex;
use crate::broker::hasher::{LANES, NameHasher};
use crate::broker::lifecycle::{CallRefused, Intent, Lifecycle};
use crate::broker::limits::{AtomicLimits, Limits};
use crate::broker::name::Space;
use crate::broker::registry::Registry;
use crate::broker::rules::{Decision, FreedName, Table};
use crate::broker::tokens::{Tokens, TokensEnd};
use crate::os::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex};

/// How many orphaned names a lane remembers. Names are spread evenly, so all lanes together
/// remember the newest 65,536, except with negligible probability, and never more than twice that.
const ORPHANS_PER_LANE: usize = 2 * 65_536 / LANES;

/// Has a cache line to itself, and the other line of the pair that a CPU fetches together: for what
/// threads change all the time. A neighbour on the same line would be slow to read because of it.
#[repr(align(128))]
pub(super) struct CachePadded<T>(T);

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[repr(C)]
pub(super) struct LaneCell {
    /// The number of locks in the lane. Changed with the lane locked, read without, for the limit
    /// on all locks.
    pub(super) held: AtomicUsize,
    pub(super) lane: Mutex<Lane>,
}

/// The table, the counter of its names' tokens, and the results of a turn, which are kept here for
/// their capacity.
pub(super) struct TableCell {
    pub(super) table: Table,
    pub(super) tokens: Tokens,
    pub(super) decided: Vec<Decision>,
    pub(super) idle: Vec<FreedName>,
}

pub(super) struct Shell {
    hasher: NameHasher,
    pub(super) lanes: Box<[CachePadded<LaneCell>]>,
    pub(super) contended: CachePadded<FifoMutex<TableCell>>,
    /// Held for a bulk turn at the table, so that there is at most one of them at a time.
    pub(super) bulk: CachePadded<FifoMutex<()>>,
    /// The number of locks in the table. Changed with the table locked, read without.
    pub(super) table_held: CachePadded<AtomicUsize>,
    pub(super) sessions: CachePadded<Registry>,
    pub(super) session_ids: CachePadded<AtomicU64>,
    tokens_end: Arc<TokensEnd>,
    pub(super) limits: AtomicLimits,
    pub(super) lifecycle: Lifecycle,
    /// Whether hold times are measured.
    pub(super) measures_holds: AtomicBool,
}

impl Shell {
    pub(super) fn new(limits: Limits, tokens: Tokens, grace_ends: Option<Stamp>) -> Self {
        Self::with_lifecycle(limits, tokens, Lifecycle::new(grace_ends))
    }

    /// Of a standby, which has no tokens yet.
    pub(super) fn standby(limits: Limits) -> Self {
        Self::with_lifecycle(limits, Tokens::between(0, 0), Lifecycle::standby())
    }

    fn with_lifecycle(limits: Limits, tokens: Tokens, lifecycle: Lifecycle) -> Self {
        let lane = || Mutex::new(Lane::new(ORPHANS_PER_LANE, tokens.clone()));
        let cell = || CachePadded(LaneCell { lane: lane(), held: AtomicUsize::new(0) });
        let lanes = std::iter::repeat_with(cell).take(LANES).collect();
        let tokens_end = tokens.end().clone();
        let table = TableCell { table: Table::default(), tokens, decided: Vec::new(), idle: Vec::new() };
        Self {
            hasher: NameHasher::new(),
            lanes,
            contended: CachePadded(FifoMutex::new(table)),
            bulk: CachePadded(FifoMutex::new(())),
            table_held: CachePadded(AtomicUsize::new(0)),
            sessions: CachePadded(Registry::new()),
            session_ids: CachePadded(AtomicU64::new(1)),
            tokens_end,
            limits: AtomicLimits::new(limits),
            lifecycle,
            measures_holds: AtomicBool::new(false),
        }
    }

    /// An id for a new session, which no session before it had.
    pub(super) fn next_session_id(&self) -> u64 {
        self.session_ids.fetch_add(1, Relaxed)
    }

    /// No grant so far has this token or a higher one. Other threads may be given it meanwhile.
    pub(super) fn next_token(&self) -> u64 {
        let in_table = self.contended.lock().tokens.peek();
        self.lanes.iter().map(|cell| cell.lane.lock().next_token()).fold(in_table, u64::max)
    }

    /// What was a standby's begins to grant with these tokens.
    pub(super) fn begin(&self, tokens: &Range<u64>, grace_ends: Option<Stamp>) -> bool {
        self.contended.lock().tokens.raise_to(tokens.start);
        self.lanes.iter().for_each(|cell| cell.lane.lock().raise_tokens(tokens.start));
        self.set_tokens_end(tokens.end);
        self.lifecycle.begin(grace_ends)
    }

    pub(super) fn set_tokens_end(&self, end: u64) {
        self.tokens_end.set(end);
    }

    pub(super) fn key<'a>(&self, space: Space, name: &'a [u8]) -> KeyRef<'a> {
        KeyRef { space, name, hash: self.hasher.hash(space, name) }
    }

    /// Runs `work` on the lane of this number.
    pub(super) fn in_lane<R>(
        &self,
        lane: usize,
        intent: Intent<'_>,
        work: impl FnOnce(&mut Lane) -> R,
    ) -> Result<R, CallRefused> {
        let cell = &self.lanes[lane];
        let mut content = cell.lane.lock();
        if let Intent::Acquiring(info) = intent {
            info.holdings.note_lane(lane);
        }
        self.lifecycle.check(intent)?;
        let sentinel = self.lifecycle.arm();
        let result = work(&mut content);
        cell.held.store(content.held_in_all(), Relaxed);
        sentinel.disarm();
        Ok(result)
    }
}
