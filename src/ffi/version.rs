//! The version of the library and of its ABI.

use std::ffi::c_char;

use super::guard::guard;

/// The number in the library's soname. It changes only when a program compiled against an older
/// header would not work any more.
const ABI: u32 = 1;

/// The version of the library, as MAJOR.MINOR.PATCH.
///
/// @return  Static text, never NULL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    guard(|| Ok(VERSION.as_ptr().cast()))
}

/// The version of the ABI: the number in the library's soname, 1 for this header. A program that
/// loads the library at run time (dlopen, FFI) should check it first.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_abi_version() -> u32 {
    guard(|| Ok(ABI))
}
