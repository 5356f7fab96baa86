//! Where a session's latest grant in a lane is, so that the release that usually follows need not
//! hash the name and look it up. Only a hint: the lane compares the name itself.

use crate::broker::fast_lane::NodeIndex;
use crate::broker::hasher::LANES;
use crate::os::sync::{AtomicU64, Ordering};

/// The lane and the node of a session's latest grant, and some bits of its name, in one number:
/// threads that use the session at the same time see one grant or the other, and no mixture.
#[derive(Default)]
pub(super) struct LastGrant(AtomicU64);

const LANE_BITS: u32 = LANES.ilog2();
const TAG_SHIFT: u32 = NodeIndex::BITS + LANE_BITS;

impl LastGrant {
    pub(super) fn set(&self, name: &[u8], lane: usize, node: NodeIndex) {
        let place = (lane as u64) << NodeIndex::BITS | u64::from(node);
        self.0.store(tag(name) << TAG_SHIFT | place, Ordering::Relaxed);
    }

    /// The lane and the node, if the latest grant seems to have been one of this name.
    #[expect(clippy::cast_possible_truncation, reason = "the parts are cut out of the number")]
    pub(super) fn of(&self, name: &[u8]) -> Option<(usize, NodeIndex)> {
        let last = self.0.load(Ordering::Relaxed);
        let lane = last as usize >> NodeIndex::BITS & (LANES - 1);
        ((tag(name) ^ last >> TAG_SHIFT) << TAG_SHIFT == 0).then_some((lane, last as NodeIndex))
    }
}

/// Some bits of a name that differ for most names. Two names with equal tags cost a needless look
/// at a lane, and nothing else.
fn tag(name: &[u8]) -> u64 {
    let ends = match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(32),
        _ => name.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte)),
    };
    // Mixes every byte into the bits that are kept.
    (ends ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}
