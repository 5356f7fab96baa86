//! The limits of a broker, which can be changed while it runs, and those on the names of one
//! request, which are fixed. A lowered limit takes nothing away from sessions that exceed it
//! already.

use crate::broker::name::LockName;
use crate::broker::outcome::AcquireError;
use crate::os::sync::{AtomicUsize, Ordering};

/// How many names one request may have. A request for several names holds the table lock for its
/// whole duration.
pub const NAMES_AT_ONCE_MAX: usize = 1024;

/// How many bytes the names of one request may have together, so that the request fits into a
/// message of one mebibyte however the names are encoded in JSON. Requests that are not sent as
/// messages have the same limit, so that every broker answers a request alike.
pub const NAMES_BYTES_MAX: usize = 128 << 10;

/// Whether these names may be requested at once: they are few enough, not too long together, and
/// all different. A client checks the same before it sends a request.
pub(crate) fn check_set<'a, S: Ord>(
    names: impl IntoIterator<Item = (S, &'a LockName)>,
) -> Result<(), AcquireError> {
    let invalid = |text: &str| Err(AcquireError::Invalid(text.to_owned()));
    let mut names: Vec<(S, &LockName)> = names.into_iter().collect();
    if names.is_empty() {
        return invalid("no name is given");
    }
    if names.len() > NAMES_AT_ONCE_MAX {
        return invalid(&format!("more than {NAMES_AT_ONCE_MAX} names at once"));
    }
    if names.iter().map(|(_, name)| name.as_bytes().len()).sum::<usize>() > NAMES_BYTES_MAX {
        return invalid(&format!("the names have more than {NAMES_BYTES_MAX} bytes together"));
    }
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return invalid("the same name is given twice");
    }
    Ok(())
}

/// The limits of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest name, in bytes.
    pub name_bytes_max: usize,
    /// Locks held by all sessions together. Each holder of a shared lock counts.
    pub locks_max: usize,
    /// Locks held by one session.
    pub locks_per_session_max: usize,
    /// Names that one session waits for at the same time. A request for several names counts once
    /// for each of them.
    pub waits_per_session_max: usize,
}

impl Default for Limits {
    /// Names of up to 1024 bytes, 10,000 waits per session, and no limit on locks.
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
pub(super) struct AtomicLimits {
    name_bytes_max: AtomicUsize,
    locks_max: AtomicUsize,
    locks_per_session_max: AtomicUsize,
    waits_per_session_max: AtomicUsize,
}

impl AtomicLimits {
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

    /// Whether there is a limit on locks: if not, they need not be counted for each grant.
    pub(super) fn limits_locks(&self) -> bool {
        self.locks_max().min(self.locks_per_session_max()) < usize::MAX
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
