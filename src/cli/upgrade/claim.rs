//! One upgrade at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};

/// Whether an upgrade is in progress. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct UpgradeClaim(Arc<AtomicBool>);

impl UpgradeClaim {
    /// Claims the next upgrade. False if one is in progress.
    pub(crate) fn take(&self) -> bool {
        !self.0.swap(true, AcqRel)
    }

    /// The upgrade has come to nothing.
    pub(crate) fn give_up(&self) {
        self.0.store(false, Release);
    }
}
