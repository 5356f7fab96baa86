//! Checks what C passes, and converts it to what the crate's calls take. No invalid argument gets
//! beyond this.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::time::Duration;

use super::modes::mode;
use super::status::{Failure, lock_status};
use crate::broker::{Mode, NAMES_AT_ONCE_MAX};
use crate::os::fork::NotInherited;

/// The longest name.
const NAME_BYTES_MAX: usize = 1024;

/// The content of a handle.
///
/// # Safety
/// `handle` is NULL, or was made by this library and not freed, and is not freed during `'a`.
pub(super) unsafe fn handle<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise; the content of a handle is only ever borrowed shared.
    unsafe { handle.as_ref() }.ok_or_else(|| is_null(what))
}

/// The content of a handle, unless it belongs to a parent process.
pub(super) fn own<T>(thing: &NotInherited<T>) -> Result<&T, Failure> {
    thing.get().ok_or_else(is_of_parent)
}

#[cold]
fn is_of_parent() -> Failure {
    Failure::plain(lock_status::LOCK_FORKED)
}

/// Frees a handle, and its content unless that belongs to a parent process.
///
/// # Safety
/// `handle` is NULL, or was made from a box and is not used any more by any thread.
pub(super) unsafe fn free<T>(handle: *mut T) -> Result<(), Failure> {
    if !handle.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(handle) });
    }
    Ok(())
}

/// The bytes of a string that must not be NULL.
///
/// # Safety
/// `text` is NULL or points to a string that ends with a zero byte and is not changed during `'a`.
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

/// The bytes of a lock's name. The limit is the one that the header promises, for every function
/// and for every broker and server. A broker that allows less refuses the name itself.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn name<'a>(name: *const c_char) -> Result<&'a [u8], Failure> {
    // SAFETY: the caller's promise.
    let name = unsafe { bytes(name, "name") }?;
    if name.len() > NAME_BYTES_MAX {
        return Err(is_too_long());
    }
    Ok(name)
}

#[cold]
fn is_too_long() -> Failure {
    Failure::invalid(format_args!("a name is longer than {NAME_BYTES_MAX} bytes"))
}

/// The text of a string that must not be NULL.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(text, what) }?;
    str::from_utf8(bytes).map_err(|_| Failure::invalid(format_args!("{what} is not UTF-8")))
}

/// Each of the `count` elements of an array, converted by `convert`. The array is named `what` in
/// errors.
///
/// # Safety
/// `array` is NULL or points to `count` elements.
unsafe fn each<T: Copy, R>(
    array: *const T,
    count: usize,
    what: &str,
    convert: impl Fn(usize, T) -> Result<R, Failure>,
) -> Result<Vec<R>, Failure> {
    if array.is_null() && count > 0 {
        return Err(is_null(what));
    }
    (0..count)
        .map(|at| {
            // SAFETY: the caller's promise, since `at` is less than `count`.
            let element = unsafe { array.add(at) };
            // SAFETY: as above.
            convert(at, unsafe { element.read() })
        })
        .collect()
}

/// The text of each of `count` strings; `which` names one of them in errors.
///
/// # Safety
/// `texts` is NULL or points to `count` pointers that [`text`] takes.
pub(super) unsafe fn texts<'a>(
    texts: *const *const c_char,
    count: usize,
    what: &str,
    which: impl Fn(usize) -> String,
) -> Result<Vec<&'a str>, Failure> {
    // SAFETY: the caller's promise.
    let convert = |at: usize, one| unsafe { text(one, &which(at)) };
    // SAFETY: the caller's promise.
    unsafe { each(texts, count, what, convert) }
}

/// A label, which may be NULL; bytes that are not UTF-8 are replaced.
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
    // SAFETY: the caller's promise.
    let convert = |_, one| unsafe { name(one) };
    // SAFETY: the caller's promise.
    unsafe { each(names, count, "names", convert) }
}

/// The mode of each of `count` names: exclusive if `modes` is NULL.
///
/// # Safety
/// `modes` is NULL or points to `count` numbers.
unsafe fn modes(modes: *const u32, count: usize) -> Result<Vec<Mode>, Failure> {
    if modes.is_null() {
        return Ok(vec![Mode::Exclusive; count]);
    }
    // SAFETY: the caller's promise.
    unsafe { each(modes, count, "modes", |_, number| mode(number)) }
}

/// Several names, each with its mode.
///
/// # Safety
/// As for [`names`] and [`modes`].
pub(super) unsafe fn wants<'a>(
    names: *const *const c_char,
    modes: *const u32,
    count: usize,
) -> Result<Vec<(&'a [u8], Mode)>, Failure> {
    if count > NAMES_AT_ONCE_MAX {
        return Err(Failure::invalid(format_args!("more than {NAMES_AT_ONCE_MAX} names at once")));
    }
    // SAFETY: the caller's promise.
    let names = unsafe { self::names(names, count) }?;
    // SAFETY: the caller's promise.
    let modes = unsafe { self::modes(modes, count) }?;
    Ok(names.into_iter().zip(modes).collect())
}

/// A time limit; a negative number is `None`, which means no limit.
pub(super) fn limit(milliseconds: i64) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

/// Writes an output, unless the caller has passed NULL because it does not want it.
///
/// # Safety
/// `output` is NULL, or may be written to.
pub(super) unsafe fn write<T>(output: *mut T, value: T) {
    if !output.is_null() {
        // SAFETY: the caller's promise.
        unsafe { output.write(value) };
    }
}

#[cold]
pub(super) fn is_null(what: &str) -> Failure {
    Failure::invalid(format_args!("{what} is NULL"))
}
