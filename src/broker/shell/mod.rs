//! The shell around the rules: what takes locks and reads the clock, and decides nothing.

pub(super) mod admission;
pub(super) mod core;
pub(super) mod ending;
pub(super) mod fifo;
pub(super) mod held;
pub(super) mod lifecycle;
pub(super) mod registry;
pub(super) mod turns;
