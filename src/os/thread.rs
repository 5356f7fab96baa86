//! The library's own threads, which end in such a way that a fork does no harm. Knows nothing of
//! the work that they do.
//!
//! They are started through libc. When a thread of `std::thread` ends, it takes a lock of the whole
//! process. In a child that is forked in this moment, the lock would stay locked for ever: no
//! thread of `std` could end there, and a server there could not be stopped.
#![expect(unsafe_code, reason = "threads are started and joined through libc")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow};

/// A thread. If it is dropped instead of [joined](Self::join), the thread continues by itself.
#[derive(Debug)]
pub(crate) struct Thread(libc::pthread_t);

/// What a new thread is given.
struct ThreadStart {
    /// At most 15 bytes.
    name: &'static CStr,
    work: Box<dyn FnOnce() + Send>,
}

thread_local! {
    static IS_LIBRARY_THREAD: Cell<bool> = const { Cell::new(false) };
    /// The text of a panic, which is logged once the panic has ended the thread's work.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Whether the current thread was started by the library.
pub(crate) fn is_library_thread() -> bool {
    IS_LIBRARY_THREAD.try_with(Cell::get).unwrap_or(false)
}

/// For a panic hook in one of the library's threads: logs `panic` once the panic has unwound all of
/// the thread's work. The hook itself must not log: it runs while the work still holds its locks.
pub(crate) fn log_after_unwind(panic: String) {
    // It fails only when the thread's local values are gone. Then the thread is about to end,
    // without work.
    let _ = PANIC.try_with(|last| last.replace(Some(panic)));
}

/// Schedules the current thread so that it displaces no other thread when it is woken. Threads that
/// it starts are scheduled in the same way.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn schedule_as_batch() -> io::Result<()> {
    const THIS_THREAD: libc::pid_t = 0;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads the parameters, and affects this thread only.
    match unsafe { libc::sched_setscheduler(THIS_THREAD, libc::SCHED_BATCH, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Thread {
    /// Starts a thread with a stack of `stack_bytes`. A panic ends the thread and nothing else.
    ///
    /// # Errors
    /// If the operating system cannot start one. `work` is dropped then.
    pub(crate) fn start(
        name: &'static CStr,
        stack_bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let start = Box::into_raw(Box::new(ThreadStart { name, work: Box::new(work) }));
        let thread = Attributes::new(stack_bytes).and_then(|attributes| attributes.create(start));
        if thread.is_err() {
            // SAFETY: made above, and no thread was started that could take it.
            drop(unsafe { Box::from_raw(start) });
        }
        thread
    }

    /// Waits until the thread has ended.
    pub(crate) fn join(self) {
        let this = ManuallyDrop::new(self);
        // SAFETY: the thread was neither joined nor detached, since both consume `self`.
        // It fails only if it was, or for a thread that joins itself.
        unsafe { libc::pthread_join(this.0, ptr::null_mut()) };
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: as in `join`.
        unsafe { libc::pthread_detach(self.0) };
    }
}

/// Blocks all signals in the current thread, and so in the threads that it starts, until this is
/// dropped. The signal handlers of a program that embeds a server must run in the program's own
/// threads.
pub(crate) struct SignalsBlocked(SigSet);

impl SignalsBlocked {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // It cannot fail: the thread has had this mask before.
        let _ = self.0.thread_set_mask();
    }
}

struct Attributes(libc::pthread_attr_t);

impl Attributes {
    fn new(stack_bytes: usize) -> io::Result<Self> {
        let mut new = MaybeUninit::uninit();
        // SAFETY: initializes all of the attributes.
        checked(unsafe { libc::pthread_attr_init(new.as_mut_ptr()) })?;
        // SAFETY: initialized above.
        let mut new = Self(unsafe { new.assume_init() });
        // SAFETY: asks for a number.
        let least = unsafe { libc::sysconf(libc::_SC_THREAD_STACK_MIN) };
        let bytes = stack_bytes.max(usize::try_from(least).unwrap_or_default());
        // SAFETY: initialized above.
        checked(unsafe { libc::pthread_attr_setstacksize(&raw mut new.0, bytes) })?;
        Ok(new)
    }

    /// Creates a thread, which takes `start`. If that fails, `start` is left to the caller.
    fn create(&self, start: *mut ThreadStart) -> io::Result<Thread> {
        let mut thread = MaybeUninit::uninit();
        // SAFETY: the attributes are initialized, and `run` takes what `start` points to.
        checked(unsafe { libc::pthread_create(thread.as_mut_ptr(), &raw const self.0, run, start.cast()) })?;
        // SAFETY: the call succeeded, so it has written this.
        Ok(Thread(unsafe { thread.assume_init() }))
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialized by `new`, and not used any more.
        unsafe { libc::pthread_attr_destroy(&raw mut self.0) };
    }
}

fn checked(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

extern "C" fn run(start: *mut c_void) -> *mut c_void {
    // SAFETY: the box that `Thread::start` made for this thread alone.
    let ThreadStart { name, work } = *unsafe { Box::from_raw(start.cast::<ThreadStart>()) };
    // SAFETY: only returns the current thread.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the current thread, and a string that ends with zero. If it fails, the thread has no
    // name.
    unsafe { libc::pthread_setname_np(this, name.as_ptr()) };
    IS_LIBRARY_THREAD.set(true);
    if catch_unwind(AssertUnwindSafe(work)).is_err()
        && let Some(panic) = PANIC.take()
    {
        // The logger is of the program that uses the library, and may panic, too.
        let _ = catch_unwind(|| log::error!("{panic}"));
    }
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn the_work_is_done_when_join_returns() {
        let done = Arc::new(AtomicBool::new(false));
        let thread = Thread::start(c"test", 128 << 10, {
            let done = done.clone();
            move || done.store(is_library_thread(), Relaxed)
        });
        thread.unwrap().join();
        assert!(done.load(Relaxed) && !is_library_thread());
    }

    #[test]
    fn a_thread_that_is_not_joined_continues() {
        let (tell, told) = channel();
        drop(Thread::start(c"test", 0, move || tell.send(7).unwrap()).unwrap());
        assert_eq!(told.recv(), Ok(7));
    }

    #[test]
    fn the_work_is_dropped_if_no_thread_can_be_started() {
        let work = Arc::new(());
        let kept = Arc::downgrade(&work);
        assert!(Thread::start(c"test", usize::MAX / 2, move || drop(work)).is_err());
        assert_eq!(kept.strong_count(), 0);
    }

    #[test]
    fn batch_scheduling_affects_one_thread_only() {
        // SAFETY: asks for the policy of this thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        std::thread::spawn(move || {
            schedule_as_batch().unwrap();
            assert_eq!(policy(), libc::SCHED_BATCH);
        })
        .join()
        .unwrap();
        assert_eq!(policy(), before);
    }

    #[test]
    fn a_panic_ends_only_its_thread() {
        let thread = Thread::start(c"test", 128 << 10, || std::panic::resume_unwind(Box::new(())));
        thread.unwrap().join();
    }
}
