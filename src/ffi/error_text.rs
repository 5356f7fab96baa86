//! The functions that return a status's text and the last error's text.

use std::ffi::{c_char, c_int};

use super::guard::guard;
use super::status::{last_error, text};

/// The meaning of a status, in a few words of English.
///
/// @param status  A lock_status; for any other number the text says that it is not one.
/// @return        Static text, never NULL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_strerror(status: c_int) -> *const c_char {
    guard(|| Ok(text(status).as_ptr()))
}

/// Why the last failed call of this thread failed, such as the address that could not be reached,
/// or the sessions of a deadlock. If nothing is known beyond the status, it is the text of
/// lock_strerror. The text is complete: print it instead of that of lock_strerror, not after it. A
/// call that returns LOCK_OK, or LOCK_PENDING because it has taken a place, leaves it as it was.
///
/// @return  Text of this thread, in UTF-8, valid until the thread's next call of this library;
///          empty if no call has failed. Never NULL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_last_error() -> *const c_char {
    guard(|| Ok(last_error()))
}
