//! Room for so many and no more, whatever it is that they do.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// How many places are taken, of how many.
pub(super) struct Room {
    taken: AtomicUsize,
    most: usize,
}

/// A place, until it is dropped. `R` leads to its room.
pub(super) struct Place<R: AsRef<Room>>(pub(super) R);

impl Room {
    pub(super) fn for_at_most(most: usize) -> Self {
        Self { taken: AtomicUsize::new(0), most }
    }
}

impl AsRef<Room> for &Room {
    fn as_ref(&self) -> &Room {
        self
    }
}

impl<R: AsRef<Room>> Place<R> {
    /// Takes a place; `None` if there is none left.
    pub(super) fn take(room: R) -> Option<Self> {
        let Room { taken, most } = room.as_ref();
        let one_more = |count| (count < *most).then_some(count + 1);
        taken.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Self(room))
    }
}

impl<R: AsRef<Room>> Drop for Place<R> {
    fn drop(&mut self) {
        self.0.as_ref().taken.fetch_sub(1, Relaxed);
    }
}
