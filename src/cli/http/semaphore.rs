//! A counting semaphore whose permits are taken at once or not at all.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Hands out a limited number of permits.
pub(super) struct Semaphore {
    taken: AtomicUsize,
    permits_max: usize,
}

/// Counts until it is dropped.
pub(super) struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    pub(super) fn new(permits_max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), permits_max }
    }

    /// Takes a permit; `None` if there is none left.
    pub(super) fn try_acquire(&self) -> Option<Permit<'_>> {
        let one_more = |count| (count < self.permits_max).then_some(count + 1);
        self.taken.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_limited_and_come_back_when_they_are_dropped() {
        let semaphore = Semaphore::new(16);
        let all: Vec<_> = std::iter::from_fn(|| semaphore.try_acquire()).collect();
        assert_eq!(all.len(), 16);
        drop(all);
        assert!(semaphore.try_acquire().is_some());
    }
}
