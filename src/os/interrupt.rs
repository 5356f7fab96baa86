//! Interrupting threads of the library that wait in a system call: by a signal whose handler does
//! nothing, so that the call fails with [`Interrupted`](std::io::ErrorKind::Interrupted). Knows
//! nothing of what the threads wait for.
//!
//! The signal is SIGURG: a process that has no handler for it ignores it, so one that comes too
//! late does no harm. The handler must belong to the program, as all handlers do. A program that
//! embeds the library has none unless it has called [`allow`].
#![expect(unsafe_code, reason = "signal handlers and signals to threads are of libc")]

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::os::sync::Mutex;

const SIGNAL: Signal = Signal::SIGURG;

/// Whether the program has a handler. Otherwise all signals stay blocked in the library's threads.
static IS_ALLOWED: AtomicBool = AtomicBool::new(false);

extern "C" fn do_nothing(_: c_int) {}

/// Installs the handler in this process.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn allow() -> io::Result<()> {
    // Without SA_RESTART: the interrupted call must fail.
    let action = SigAction::new(SigHandler::Handler(do_nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing at all.
    unsafe { sigaction(SIGNAL, &action) }?;
    IS_ALLOWED.store(true, Release);
    Ok(())
}

/// The threads that can be interrupted.
#[derive(Debug, Default)]
pub(crate) struct InterruptibleThreads(Mutex<Registered>);

#[derive(Debug, Default)]
struct Registered {
    threads: BTreeMap<u64, libc::pthread_t>,
    next: u64,
}

impl InterruptibleThreads {
    /// Adds the current thread, which takes the signal from now on. The thread must not end before
    /// it has [left](Self::leave). Returns its number here.
    pub(crate) fn join(&self) -> u64 {
        if IS_ALLOWED.load(Acquire) {
            let mut signals = SigSet::empty();
            signals.add(SIGNAL);
            // It fails only for a signal that does not exist.
            let _ = signals.thread_unblock();
        }
        // SAFETY: only returns the current thread.
        let this = unsafe { libc::pthread_self() };
        let mut registered = self.0.lock();
        registered.next += 1;
        let number = registered.next;
        registered.threads.insert(number, this);
        number
    }

    /// Removes a thread.
    pub(crate) fn leave(&self, number: u64) {
        self.0.lock().threads.remove(&number);
    }

    /// Interrupts the system calls in which these threads wait. A call that begins a moment later
    /// is not interrupted, so this must be repeated until the threads have noticed. Returns how
    /// many threads there are for which `is_meant` is true.
    pub(crate) fn interrupt(&self, is_meant: impl Fn(u64) -> bool) -> usize {
        let registered = self.0.lock();
        let mut count = 0;
        for (_, &thread) in registered.threads.iter().filter(|&(&number, _)| is_meant(number)) {
            // SAFETY: the thread has not left, so it still runs. It cannot fail then.
            unsafe { libc::pthread_kill(thread, SIGNAL as c_int) };
            count += 1;
        }
        count
    }

    /// How many threads there are for which `is_meant` is true.
    pub(crate) fn count(&self, is_meant: impl Fn(u64) -> bool) -> usize {
        self.0.lock().threads.keys().filter(|&&number| is_meant(number)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_is_woken_out_of_a_read_and_has_read_nothing() {
        allow().unwrap();
        let threads = Arc::new(InterruptibleThreads::default());
        let (mut reader, mut writer) = io::pipe().unwrap();
        let (tell, told) = channel();
        let (tell_end, told_end) = channel();
        let registered = threads.clone();
        let thread = std::thread::spawn(move || {
            let number = registered.join();
            tell.send(number).unwrap();
            let error = io::Read::read(&mut reader, &mut [0; 8]).unwrap_err();
            registered.leave(number);
            tell_end.send(()).unwrap();
            (error.kind(), reader)
        });
        let reading = told.recv().unwrap();
        while told_end.recv_timeout(Duration::from_millis(1)).is_err() {
            threads.interrupt(|number| number == reading);
        }
        let (kind, mut reader) = thread.join().unwrap();
        assert_eq!((kind, threads.interrupt(|_| true)), (io::ErrorKind::Interrupted, 0));
        io::Write::write_all(&mut writer, b"whole").unwrap();
        drop(writer);
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "whole");
    }
}
