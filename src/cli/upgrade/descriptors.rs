//! Descriptors that go from one image of this process to the next, as the numbers that they keep.
#![expect(unsafe_code, reason = "descriptors are handed over as bare numbers")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// Owns a descriptor that the image before this one has handed over. Each must be owned once, and
/// before anything else is opened.
///
/// # Errors
/// If nothing is open there.
pub(crate) fn own(number: RawFd) -> io::Result<OwnedFd> {
    set_flags(number, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, as the call above has shown, and the image that has opened it is gone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets descriptors of this process stay open in the next image.
///
/// # Errors
/// If one of them is not open.
pub(crate) fn keep_at_exec(numbers: &[RawFd]) -> io::Result<()> {
    numbers.iter().try_for_each(|number| set_flags(*number, FdFlags::empty()))
}

/// Takes [`keep_at_exec`] back.
pub(crate) fn close_at_exec(numbers: &[RawFd]) {
    for number in numbers {
        // It fails only for a descriptor that is not open.
        let _ = set_flags(*number, FdFlags::CLOEXEC);
    }
}

fn set_flags(number: RawFd, flags: FdFlags) -> io::Result<()> {
    if number < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: borrowed for questions to the kernel, which reports an error if nothing is open there.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(descriptor)?;
    Ok(fcntl_setfd(descriptor, flags)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn a_descriptor_stays_open_at_exec_only_while_it_is_handed_over() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let closes = || fcntl_getfd(&reader).unwrap().contains(FdFlags::CLOEXEC);
        assert!(closes());
        keep_at_exec(&[reader.as_raw_fd()]).unwrap();
        assert!(!closes());
        close_at_exec(&[reader.as_raw_fd()]);
        assert!(closes());
    }

    #[test]
    fn a_number_at_which_nothing_is_open_is_refused() {
        for number in [-1, RawFd::MAX] {
            assert!(own(number).is_err() && keep_at_exec(&[number]).is_err(), "{number}");
        }
        let (reader, _writer) = std::io::pipe().unwrap();
        let number = reader.into_raw_fd();
        assert_eq!(own(number).unwrap().as_raw_fd(), number);
    }
}
