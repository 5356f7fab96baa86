//! What C passes, checked and made into what the crate's calls take. Nothing that is wrong gets further than
//! this.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::time::Duration;

use super::status::{Failure, lock_mode, lock_status};
use crate::broker::Mode;
use crate::os::fork::OfThisProcess;

/// The longest name.
const NAME_BYTES_MAX: usize = 1024;

/// What a handle points to.
///
/// # Safety
/// `handle` is NULL, or was made by this library and not freed, and is not freed for as long as `'a`.
pub(super) unsafe fn handle<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise; nothing ever takes a handle's content exclusively.
    unsafe { handle.as_ref() }.ok_or_else(|| is_null(what))
}

/// What is behind a handle, unless that belongs to a parent process.
pub(super) fn own<T>(thing: &OfThisProcess<T>) -> Result<&T, Failure> {
    thing.get().ok_or_else(|| Failure::plain(lock_status::LOCK_FORKED))
}

/// Frees a handle, and what is behind it unless that belongs to a parent process.
///
/// # Safety
/// `handle` is NULL, or was made from a box and is not used any more, by nobody.
pub(super) unsafe fn free<T>(handle: *mut T) -> Result<(), Failure> {
    if !handle.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(handle) });
    }
    Ok(())
}

/// The bytes of a string that must be there.
///
/// # Safety
/// `text` is NULL or points to a string that ends with a zero byte and is not changed for as long as `'a`.
pub(super) unsafe fn bytes<'a>(text: *const c_char, what: &str) -> Result<&'a [u8], Failure> {
    if text.is_null() {
        return Err(is_null(what));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// The bytes of a string that may be NULL.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn optional_bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { bytes(text, "") }.ok()
}

/// The bytes of a lock's name. The limit is the one that the header promises, for every verb and wherever the
/// locks are; a broker that allows less says so itself, of what it is asked.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn name<'a>(name: *const c_char) -> Result<&'a [u8], Failure> {
    // SAFETY: the caller's promise.
    let name = unsafe { bytes(name, "name") }?;
    if name.len() > NAME_BYTES_MAX {
        return Err(Failure::invalid(format_args!("a name is longer than {NAME_BYTES_MAX} bytes")));
    }
    Ok(name)
}

/// The text of a string that must be there.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(text, what) }?;
    str::from_utf8(bytes).map_err(|_| Failure::invalid(format_args!("{what} is not UTF-8")))
}

/// The text of each of `count` strings; `which` says in words which one that is.
///
/// # Safety
/// `texts` is NULL or points to `count` pointers that [`text`] takes.
pub(super) unsafe fn texts<'a>(
    texts: *const *const c_char,
    count: usize,
    what: &str,
    which: impl Fn(usize) -> String,
) -> Result<Vec<&'a str>, Failure> {
    if texts.is_null() && count > 0 {
        return Err(is_null(what));
    }
    (0..count)
        .map(|at| {
            // SAFETY: the caller's promise, `at` being less than `count`.
            let one = unsafe { texts.add(at) };
            // SAFETY: as above.
            let one = unsafe { one.read() };
            // SAFETY: as above.
            unsafe { text(one, &which(at)) }
        })
        .collect()
}

/// A label, which may be NULL; what is not UTF-8 in it is replaced.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn label<'a>(label: *const c_char) -> Option<Cow<'a, str>> {
    // SAFETY: the caller's promise.
    unsafe { optional_bytes(label) }.map(String::from_utf8_lossy)
}

/// The bytes of each of `count` names.
///
/// # Safety
/// `names` is NULL or points to `count` pointers that [`name`] takes.
pub(super) unsafe fn names<'a>(names: *const *const c_char, count: usize) -> Result<Vec<&'a [u8]>, Failure> {
    if names.is_null() && count > 0 {
        return Err(is_null("names"));
    }
    (0..count)
        .map(|at| {
            // SAFETY: the caller's promise, `at` being less than `count`.
            let name = unsafe { names.add(at) };
            // SAFETY: as above.
            let name = unsafe { name.read() };
            // SAFETY: as above.
            unsafe { self::name(name) }
        })
        .collect()
}

/// The mode of each of `count` names: exclusive if `modes` is NULL.
///
/// # Safety
/// `modes` is NULL or points to `count` numbers.
pub(super) unsafe fn modes(modes: *const u32, count: usize) -> Result<Vec<Mode>, Failure> {
    if modes.is_null() {
        return Ok(vec![Mode::Exclusive; count]);
    }
    (0..count)
        .map(|at| {
            // SAFETY: the caller's promise, `at` being less than `count`.
            let number = unsafe { modes.add(at) };
            // SAFETY: as above.
            mode(unsafe { number.read() })
        })
        .collect()
}

pub(super) fn mode(number: u32) -> Result<Mode, Failure> {
    const EXCLUSIVE: u32 = lock_mode::LOCK_EXCLUSIVE as u32;
    const SHARED: u32 = lock_mode::LOCK_SHARED as u32;
    match number {
        EXCLUSIVE => Ok(Mode::Exclusive),
        SHARED => Ok(Mode::Shared),
        _ => Err(Failure::invalid(format_args!("{number} is no mode"))),
    }
}

/// A time limit; `None`, which is without limit, for a negative number.
pub(super) fn limit(milliseconds: i64) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

/// Writes an output that the caller may not want.
///
/// # Safety
/// `output` is NULL, or may be written to.
pub(super) unsafe fn write<T>(output: *mut T, value: T) {
    if !output.is_null() {
        // SAFETY: the caller's promise.
        unsafe { output.write(value) };
    }
}

pub(super) fn is_null(what: &str) -> Failure {
    Failure::invalid(format_args!("{what} is NULL"))
}
