//! What a broker will not go beyond. Kept as numbers that can be changed while it runs; a lower limit
//! takes nothing away from those who have more already.

use crate::os::sync::{AtomicUsize, Ordering};

/// How many names a request for several at once may have: such a request is decided in one step, and
/// nobody else's that is contended is meanwhile.
pub const NAMES_AT_ONCE_MAX: usize = 1024;

/// How many bytes the names of one request for several at once may have together: few enough for the request to fit
/// into a message of a mebibyte, however its names are written in JSON. The same where no message is sent, so that a
/// request is answered alike here and there.
pub const NAMES_BYTES_MAX: usize = 128 << 10;

/// The limits of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest name, in bytes.
    pub name_bytes_max: usize,
    /// Locks held in all, each shared holder counted by itself.
    pub locks_max: usize,
    /// Locks held by one session.
    pub locks_per_session_max: usize,
    /// Names that one session waits for at the same time; a request for several counts for each of them.
    pub waits_per_session_max: usize,
}

impl Default for Limits {
    /// Names up to 1024 bytes, 10,000 waits a session, and as many locks as memory holds.
    fn default() -> Self {
        Self {
            name_bytes_max: 1024,
            locks_max: usize::MAX,
            locks_per_session_max: usize::MAX,
            waits_per_session_max: 10_000,
        }
    }
}

/// [`Limits`] that can be read without a lock and changed at any time.
pub(super) struct LimitGauges {
    name_bytes_max: AtomicUsize,
    locks_max: AtomicUsize,
    locks_per_session_max: AtomicUsize,
    waits_per_session_max: AtomicUsize,
}

impl LimitGauges {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            name_bytes_max: AtomicUsize::new(limits.name_bytes_max),
            locks_max: AtomicUsize::new(limits.locks_max),
            locks_per_session_max: AtomicUsize::new(limits.locks_per_session_max),
            waits_per_session_max: AtomicUsize::new(limits.waits_per_session_max),
        }
    }

    pub(super) fn set(&self, limits: Limits) {
        self.name_bytes_max.store(limits.name_bytes_max, Ordering::Relaxed);
        self.locks_max.store(limits.locks_max, Ordering::Relaxed);
        self.locks_per_session_max.store(limits.locks_per_session_max, Ordering::Relaxed);
        self.waits_per_session_max.store(limits.waits_per_session_max, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Limits {
        Limits {
            name_bytes_max: self.name_bytes_max(),
            locks_max: self.locks_max(),
            locks_per_session_max: self.locks_per_session_max(),
            waits_per_session_max: self.waits_per_session_max.load(Ordering::Relaxed),
        }
    }

    pub(super) fn name_bytes_max(&self) -> usize {
        self.name_bytes_max.load(Ordering::Relaxed)
    }

    pub(super) fn locks_max(&self) -> usize {
        self.locks_max.load(Ordering::Relaxed)
    }

    pub(super) fn locks_per_session_max(&self) -> usize {
        self.locks_per_session_max.load(Ordering::Relaxed)
    }
}
