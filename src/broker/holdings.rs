//! What one session holds: in which lanes, how much in each, and how many locks in the table. Every
//! part changes under the mutex of its lane or of the table only, so plain loads and stores suffice;
//! one count for all would cost an atomic operation for every lock. Knows no names.

use crate::broker::fast_lane::LaneHoldings;
use crate::broker::hasher::LANES;
use crate::os::sync::Ordering::{Relaxed, SeqCst};
use crate::os::sync::{AtomicU32, AtomicU64, OnceLock, fence};

/// How many lanes' holdings are allocated together.
const GROUP_LEN: usize = if LANES < 32 { LANES } else { 32 };

/// What a session holds. Most sessions use few lanes, so memory for the others is not allocated.
pub(super) struct Holdings {
    groups: [OnceLock<Box<[LaneHoldings; GROUP_LEN]>>; LANES / GROUP_LEN],
    /// A bit for each lane in which the session has ever wanted a lock.
    used: [AtomicU64; LANES.div_ceil(64)],
    in_table: AtomicU32,
}

impl Holdings {
    pub(super) fn new() -> Self {
        Self {
            groups: std::array::from_fn(|_| OnceLock::new()),
            used: std::array::from_fn(|_| AtomicU64::new(0)),
            in_table: AtomicU32::new(0),
        }
    }

    /// What it holds in this lane.
    pub(super) fn in_lane(&self, lane: usize) -> &LaneHoldings {
        let group = &self.groups[lane / GROUP_LEN];
        let make = || Box::new(std::array::from_fn(|_| LaneHoldings::new()));
        &group.get().unwrap_or_else(|| group.get_or_init(make))[lane % GROUP_LEN]
    }

    /// Notes that the session is about to acquire something in this lane. To be called with the lane
    /// locked, before it is checked whether the session has ended. Then either that check finds that
    /// it has, or the thread that ends it finds the lane in [`lanes`](Self::lanes), and frees what
    /// was acquired there.
    #[inline]
    pub(super) fn note_lane(&self, lane: usize) {
        let (used, bit) = (&self.used[lane / 64], 1 << (lane % 64));
        if used.load(Relaxed) & bit == 0 {
            used.fetch_or(bit, SeqCst);
            // The thread that ends the session marks it as ended, and then looks at the bits.
            fence(SeqCst);
        }
    }

    /// The lanes in which the session may hold something. All of them, to a thread that has called
    /// [`fence`] after it marked the session as ended.
    pub(super) fn lanes(&self) -> impl Iterator<Item = usize> {
        let used = self.used.iter().map(|used| used.load(SeqCst));
        used.enumerate().flat_map(|(word, bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| 64 * word + bit)
        })
    }

    pub(super) fn in_table(&self) -> usize {
        self.in_table.load(Relaxed) as usize
    }

    /// Counts more locks in the table, which is locked.
    pub(super) fn add_in_table(&self, more: usize) {
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.in_table.store(self.in_table.load(Relaxed).saturating_add(more), Relaxed);
    }

    /// Counts one lock less in the table, which is locked.
    pub(super) fn subtract_one_in_table(&self) {
        let count = self.in_table.load(Relaxed);
        debug_assert!(count > 0, "a lock that was never counted is given up");
        self.in_table.store(count.saturating_sub(1), Relaxed);
    }

    /// How many locks it holds in all. Changes that other threads make at this moment may be missing.
    pub(super) fn total(&self) -> usize {
        self.lanes().map(|lane| self.in_lane(lane).count()).sum::<usize>() + self.in_table()
    }
}
