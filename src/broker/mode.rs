//! How a lock is held: alone, with at most so many holders, or with any number of them. Plain
//! values. The rule that they express is the table's.

use std::cmp::Ordering;
use std::fmt;

/// How many holders a mode allows at most. A holder is promised that there are never more holders
/// than that, itself included, while it holds the lock.
///
/// So a request is granted if, with it, there are no more holders than its own mode allows and than
/// the mode of every holder allows. Programs that name different limits need no agreement: the
/// smallest limit of those that hold the lock is in force.
///
/// The order of modes: the fewer holders a mode allows, the lower it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// One holder and no other.
    Exclusive,
    /// At most so many holders; [`Mode::at_most`] makes it.
    Limited(HolderLimit),
    /// Any number of holders.
    Shared,
}

impl Mode {
    /// The mode that allows at most `holders`: exclusive for 1, limited for more. `None` for 0, and
    /// for more than [`HolderLimit::MAX`].
    ///
    /// ```
    /// use lockd::broker::Mode;
    /// assert_eq!(Mode::at_most(1), Some(Mode::Exclusive));
    /// assert_eq!(Mode::at_most(4).and_then(Mode::holders_max), Some(4));
    /// assert_eq!(Mode::at_most(0), None);
    /// ```
    #[must_use]
    pub const fn at_most(holders: u32) -> Option<Self> {
        match holders {
            0 => None,
            1 => Some(Self::Exclusive),
            2..=HolderLimit::MAX => {
                let [_, high, middle, low] = holders.to_be_bytes();
                Some(Self::Limited(HolderLimit([high, middle, low])))
            }
            _ => None,
        }
    }

    /// How many holders it allows; `None`: any number.
    #[must_use]
    pub const fn holders_max(self) -> Option<u32> {
        match self {
            Self::Exclusive => Some(1),
            Self::Limited(limit) => Some(limit.get()),
            Self::Shared => None,
        }
    }

    /// The limit of a limited lock; `None` for the other modes.
    #[must_use]
    pub const fn limit(self) -> Option<u32> {
        match self {
            Self::Limited(limit) => Some(limit.get()),
            Self::Exclusive | Self::Shared => None,
        }
    }

    /// Whether it allows so many holders.
    #[must_use]
    pub fn allows(self, holders: usize) -> bool {
        self.holders_max().is_none_or(|max| holders <= max as usize)
    }

    /// Whether two holders in these modes, and no third one, may hold a lock together.
    #[must_use]
    pub fn is_compatible_with(self, other: Self) -> bool {
        self.min(other) != Self::Exclusive
    }
}

/// As in messages: `exclusive`, `shared`, or `at most 4`.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive => f.write_str("exclusive"),
            Self::Limited(limit) => write!(f, "at most {}", limit.get()),
            Self::Shared => f.write_str("shared"),
        }
    }
}

/// How many holders a limited lock has at most: from 2 up to [`MAX`](Self::MAX).
///
/// Three bytes, so that a mode has four and a name in the fast lane stays within one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HolderLimit([u8; 3]);

impl HolderLimit {
    /// The highest limit: 16,777,215.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The limit.
    #[must_use]
    pub const fn get(self) -> u32 {
        let [high, middle, low] = self.0;
        u32::from_be_bytes([0, high, middle, low])
    }
}

impl Ord for HolderLimit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.get().cmp(&other.get())
    }
}

impl PartialOrd for HolderLimit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for HolderLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_made_from_how_many_holders_it_allows() {
        assert_eq!(Mode::at_most(0), None);
        assert_eq!(Mode::at_most(1), Some(Mode::Exclusive));
        for limit in [2, 3, 255, 256, 65_536, HolderLimit::MAX] {
            let mode = Mode::at_most(limit).unwrap();
            assert_eq!((mode.limit(), mode.holders_max()), (Some(limit), Some(limit)));
            assert!(mode.allows(limit as usize) && !mode.allows(limit as usize + 1));
        }
        assert_eq!([HolderLimit::MAX + 1, u32::MAX].map(Mode::at_most), [None, None]);
        assert!(Mode::Shared.allows(usize::MAX) && Mode::Exclusive.allows(1) && !Mode::Exclusive.allows(2));
    }

    #[test]
    fn modes_are_ordered_by_how_many_holders_they_allow() {
        let limits = [2, 3, 255, 256, 65_535, 65_536].map(|limit| Mode::at_most(limit).unwrap());
        let ordered: Vec<Mode> = [Mode::Exclusive].into_iter().chain(limits).chain([Mode::Shared]).collect();
        assert!(ordered.is_sorted_by(|a, b| a < b), "{ordered:?}");
        assert_eq!(size_of::<Mode>(), 4);
    }
}
