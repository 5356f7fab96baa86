//! Which signals this process was started to ignore, so that the command ignores them too. Knows
//! nothing about locks and commands.
//!
//! Rust's runtime ignores SIGPIPE before `main`, and its `Command` resets it to the default, so in
//! `main` the caller's choice is already lost. Hence it is read earlier, by a function that the C
//! library calls before the runtime starts.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};

/// One bit for each signal; the lowest bit is for number 1.
static IGNORED: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "no safe code can run before `main`")]
// SAFETY: the section contains pointers to functions of this type, each of which is called once, in
// the first thread. This one makes system calls and writes an atomic; it needs nothing that is
// initialized later.
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = read_ignored;

extern "C" fn read_ignored() {
    for signal in Signal::iterator().filter(|&signal| is_ignored_now(signal as c_int)) {
        IGNORED.fetch_or(bit(signal), Relaxed);
    }
}

fn is_ignored_now(number: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    #[expect(unsafe_code, reason = "the crates can read an action only while they set a new one")]
    // SAFETY: without a new action the call only writes to `action`, which has room for it.
    let asked = unsafe { libc::sigaction(number, ptr::null(), action.as_mut_ptr()) };
    if asked != 0 {
        return false;
    }
    #[expect(unsafe_code, reason = "see above")]
    // SAFETY: the call has succeeded, so it has written all of `action`.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

/// Whether this process was started with the signal ignored.
pub(super) fn was_ignored(signal: Signal) -> bool {
    IGNORED.load(Relaxed) & bit(signal) != 0
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as c_int - 1)
}

/// Runs in a child that is about to become the command. Ignores the signals again that were ignored
/// at the start, but which this process has handled since, or `Command` has reset to the default.
/// Other signals are inherited unchanged. Neither allocates nor locks.
///
/// # Errors
/// If the system refuses.
pub(super) fn restore() -> io::Result<()> {
    for signal in [Signal::SIGPIPE, Signal::SIGCHLD] {
        if was_ignored(signal) {
            set(signal, SigHandler::SigIgn)?;
        }
    }
    Ok(())
}

/// Ends this process by SIGINT, so that its parent can see the cause. Returns if that is not
/// possible: process 1 of a namespace cannot be ended by a signal that it sends itself.
pub(super) fn die_of_sigint() {
    if set(Signal::SIGINT, SigHandler::SigDfl).is_ok()
        && SigSet::from(Signal::SIGINT).thread_unblock().is_ok()
    {
        // If it fails, the exit status says nearly the same.
        let _ = raise(Signal::SIGINT);
    }
}

fn set(number: Signal, handler: SigHandler) -> io::Result<()> {
    #[expect(unsafe_code, reason = "a signal handler can be unsound")]
    // SAFETY: no caller sets a handler function; neither ignoring a signal nor its default action
    // runs code of this program.
    unsafe { signal(number, handler) }?;
    Ok(())
}
