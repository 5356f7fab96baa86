//! What is counted of upgrades in place. Only numbers.

use std::time::{Duration, Instant};

/// The upgrades of a server since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upgrades {
    /// How many there were.
    pub count: u64,
    /// When the last one was done, and for how long nobody was served.
    pub last: Option<(Instant, Duration)>,
}
