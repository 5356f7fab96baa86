//! The modes of locks as the numbers that C passes. Makes the numbers of limited modes, and reads
//! and writes those of all modes. Decides nothing about who may hold a lock.

use super::guard::guard;
use super::status::{Failure, lock_mode};
use crate::broker::{HolderLimit, Mode};

const EXCLUSIVE: u32 = lock_mode::LOCK_EXCLUSIVE as u32;
const SHARED: u32 = lock_mode::LOCK_SHARED as u32;

/// The number of a limited mode is this and twice the limit. So it is far from every number that a
/// program may have configured, and positive also for a language whose 32-bit numbers are signed.
/// An odd number is no mode: with `| LOCK_SHARED`, or with 1 added, it must not be another limit.
const LIMITED: u32 = 1 << 30;

/// What lock_at_most returns if no mode has this limit.
const NO_MODE: u32 = u32::MAX;

/// The mode of a lock that has at most n holders, for every function that takes a mode:
///
///   status = lock_acquire(session, "gpu", lock_at_most(4), 5000, &token);
///
/// A holder is promised that there are never more than n holders, itself included, while it holds
/// the lock. So a lock is granted if, with the new holder, there are no more holders than its own n
/// and than the n of every other holder. LOCK_EXCLUSIVE is n = 1, and LOCK_SHARED has no limit.
/// Programs that name different limits need no agreement: the smallest limit of those that hold the
/// lock is in force (lock_inspect_slots tells it).
///
/// Waiters are served first come, first served, whatever their limits: the first one that has to
/// wait delays all others. A slot is free at the moment at which its holder releases it or has
/// ended. `orphaned` in lock_info is about exclusive holders only: the next holder is not told that
/// a limited one vanished. (A server counts that, as sharedOrphans in its statistics, and logs it.)
///
/// LOCK_DEADLOCK is returned if the session would wait in a cycle in which each session waits for
/// one that must go first: for a holder of an exclusive lock, or for every holder of a lock that it
/// wants exclusively. A session that waits because a limit is reached waits until enough of the
/// holders have gone, no matter which. Such a wait is never refused, even if in fact all of the
/// holders wait for this session. So where that could happen, wait with a time limit.
///
/// A limit always comes from this function. A plain number above 1 is LOCK_INVALID everywhere, but
/// the plain number 1 is LOCK_SHARED, which is no limit at all. Modes are no flags, and no numbers
/// to count with: lock_at_most(4) | LOCK_SHARED is LOCK_INVALID, and so is lock_at_most(4) + 1.
///
/// A server that is older than limited locks is asked for nothing: the call returns LOCK_REFUSED.
///
/// @param n  From 1 to 16777215.
/// @return   The mode; LOCK_EXCLUSIVE for 1. For any other n a number that is no mode, and every
///           function that takes a mode returns LOCK_INVALID for it.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_at_most(n: u32) -> u32 {
    // The body does not panic. If it did, the result would be the strictest mode.
    guard(|| Ok(Mode::at_most(n).map_or(NO_MODE, number)))
}

/// The number of a mode.
pub(super) fn number(mode: Mode) -> u32 {
    match mode {
        Mode::Exclusive => EXCLUSIVE,
        Mode::Limited(limit) => LIMITED + 2 * limit.get(),
        Mode::Shared => SHARED,
    }
}

/// The mode that a number is.
pub(super) fn mode(number: u32) -> Result<Mode, Failure> {
    match number {
        EXCLUSIVE => Ok(Mode::Exclusive),
        SHARED => Ok(Mode::Shared),
        _ => limited(number).ok_or_else(|| is_no_mode(number)),
    }
}

fn limited(number: u32) -> Option<Mode> {
    let twice = number.checked_sub(LIMITED).filter(|twice| twice.is_multiple_of(2))?;
    // Each mode has one number: a limit of 1 is exclusive.
    Mode::at_most(twice / 2).filter(|mode| *mode != Mode::Exclusive)
}

#[cold]
fn is_no_mode(number: u32) -> Failure {
    match number {
        NO_MODE => {
            let max = HolderLimit::MAX;
            Failure::invalid(format_args!("no mode: lock_at_most takes a number from 1 to {max}"))
        }
        ..=HolderLimit::MAX => {
            Failure::invalid(format_args!("{number} is no mode; use lock_at_most({number})"))
        }
        _ => Failure::invalid(format_args!("{number} is no mode; modes cannot be combined or counted with")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lock_at_most_has_made_is_a_limited_mode() {
        for limit in [1, 2, 3, 255, 256, 65_536, HolderLimit::MAX] {
            let made = lock_at_most(limit);
            assert_eq!(mode(made).unwrap(), Mode::at_most(limit).unwrap(), "{limit}");
            assert_eq!(number(mode(made).unwrap()), made, "{limit}");
            assert!(i32::try_from(made).is_ok(), "{limit}");
        }
        for none in [0, HolderLimit::MAX + 1, u32::MAX] {
            assert_eq!(lock_at_most(none), NO_MODE, "{none}");
        }
        assert_eq!(lock_at_most(1), EXCLUSIVE);
        let past = LIMITED + 2 * (HolderLimit::MAX + 1);
        for plain in [2, 3, 4, 1 << 24, LIMITED - 1, LIMITED, LIMITED + 2, past, 1 << 31, NO_MODE] {
            assert!(mode(plain).is_err(), "{plain:#x}");
        }
        for limit in [2, 3, 4, HolderLimit::MAX] {
            let made = lock_at_most(limit);
            for other in [made | SHARED, made + 1, made - 1] {
                assert!(mode(other).is_err(), "{limit} as {other:#x}");
            }
        }
    }
}
