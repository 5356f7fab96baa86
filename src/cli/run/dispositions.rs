//! Which signals this process was started to ignore, and giving that to the command. Knows nothing about locks and
//! commands.
//!
//! Rust's runtime ignores SIGPIPE before `main`, and its `Command` sets it back to the default, so after that nobody
//! knows what the caller had wanted. So this is looked up before: by a function that the C library calls first.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};

/// A bit for each signal, the lowest for number 1.
static IGNORED: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "there is no other place before `main`")]
// SAFETY: the section holds pointers to functions of this kind, which are called once, in the first thread. This one
// makes system calls and writes an atomic; it needs nothing that is set up later.
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = look;

extern "C" fn look() {
    for signal in Signal::iterator().filter(|&signal| is_ignored_now(signal as c_int)) {
        IGNORED.fetch_or(bit(signal), Relaxed);
    }
}

fn is_ignored_now(number: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    #[expect(unsafe_code, reason = "the crates only ask while they set a new action")]
    // SAFETY: without a new action the call only writes to `action`, which has the room.
    let asked = unsafe { libc::sigaction(number, ptr::null(), action.as_mut_ptr()) };
    if asked != 0 {
        return false;
    }
    #[expect(unsafe_code, reason = "see above")]
    // SAFETY: the call has succeeded, so it has written all of it.
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

/// In a child that is about to become the command: ignores again what this process has handled since, or `Command`
/// has set to the default. All else is inherited as it was. Neither allocates nor locks.
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

/// Ends this process by SIGINT, so that the caller sees how it has ended. Returns if that cannot be: nothing that
/// it sends itself ends process 1 of a namespace.
pub(super) fn die_of_sigint() {
    if set(Signal::SIGINT, SigHandler::SigDfl).is_ok()
        && SigSet::from(Signal::SIGINT).thread_unblock().is_ok()
    {
        // If it fails, the exit status says nearly the same.
        let _ = raise(Signal::SIGINT);
    }
}

fn set(number: Signal, handler: SigHandler) -> io::Result<()> {
    #[expect(unsafe_code, reason = "a handler could do anything")]
    // SAFETY: none of the callers sets a handler of this program's own; to ignore a signal, and what the system does
    // by default, run no code here.
    unsafe { signal(number, handler) }?;
    Ok(())
}
