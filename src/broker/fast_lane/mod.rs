//! The fast lane: names that one session holds and nobody waits for, which is nearly every name
//! nearly always. A lane grants and frees such a name by one look-up, and decides nothing else. As
//! soon as a second session wants the name, the lane *defers* it to the [table](super::rules),
//! which has all rules, and takes it back when nobody holds it or waits for it any more.
//!
//! A lane also remembers free names, a bounded number of them: those that are orphaned, and a few
//! that were released lately.
//!
//! Plain data: no mutex, no clock, and nothing of a session but its slot and what it holds here.

mod lane;
mod lane_holdings;
mod node;
mod recent;
mod snapshot;
mod view;

pub(super) use lane::{DeferredName, Holder, KeyRef, Lane, LaneAcquire, LaneCounts, LaneRelease};
pub(super) use lane_holdings::LaneHoldings;
pub(super) use node::NodeIndex;
pub(super) use view::LaneView;
