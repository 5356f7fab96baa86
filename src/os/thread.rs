//! The library's own threads, which end in such a way that a fork does no harm. Knows nothing of what they
//! are at.
//!
//! They are started through libc. When a thread of `std::thread` ends it takes a lock that belongs to the
//! whole process, and that a child forked in this moment would never see free again: no thread of `std`
//! could ever end in that child, and a server there could not be stopped.
#![expect(unsafe_code, reason = "threads are started and joined through libc")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow};

/// A thread, which goes on by itself if it is not [joined](Self::join).
#[derive(Debug)]
pub(crate) struct Thread(libc::pthread_t);

/// What a new thread is given.
struct Start {
    /// At most 15 bytes.
    name: &'static CStr,
    work: Box<dyn FnOnce() + Send>,
}

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
    /// What this thread is to log of the panic that has ended its work.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Whether this thread is one of the library's.
pub(crate) fn is_own() -> bool {
    IS_OWN.try_with(Cell::get).unwrap_or(false)
}

/// For a panic hook: in this thread, which is one of the library's, `panic` is logged once the panic has unwound
/// all of its work. The hook itself runs before that, with all the locks held that the work has taken, and so must
/// not log.
pub(crate) fn log_when_unwound(panic: String) {
    // Without its thread-local values the thread is about to end, and has no work left.
    let _ = PANIC.try_with(|last| last.replace(Some(panic)));
}

/// Has this thread scheduled so that it displaces nobody when it is woken; threads that it starts are
/// scheduled like it.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn schedule_as_batch() -> io::Result<()> {
    const THIS_THREAD: libc::pid_t = 0;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads the parameters, and concerns this thread alone.
    match unsafe { libc::sched_setscheduler(THIS_THREAD, libc::SCHED_BATCH, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Thread {
    /// Starts a thread with a stack of so many bytes. A panic ends the thread, and nothing else.
    ///
    /// # Errors
    /// If the operating system has none to give; `work` is dropped then.
    pub(crate) fn start(
        name: &'static CStr,
        stack_bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let start = Box::into_raw(Box::new(Start { name, work: Box::new(work) }));
        let thread = Attributes::new(stack_bytes).and_then(|attributes| attributes.create(start));
        if thread.is_err() {
            // SAFETY: made above, and no thread has come to take it.
            drop(unsafe { Box::from_raw(start) });
        }
        thread
    }

    /// Waits until the thread has ended.
    pub(crate) fn join(self) {
        let this = ManuallyDrop::new(self);
        // SAFETY: a thread that was neither joined nor detached: both take `self`.
        // It fails only if that is not so, or for a thread that joins itself.
        unsafe { libc::pthread_join(this.0, ptr::null_mut()) };
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: as in `join`.
        unsafe { libc::pthread_detach(self.0) };
    }
}

/// All signals are blocked in this thread, and so in those it starts, until this goes: the handlers of a
/// program that embeds a server are to run in threads of its own.
pub(crate) struct SignalsBlocked(SigSet);

impl SignalsBlocked {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // It cannot fail: the mask is one that this thread has had.
        let _ = self.0.thread_set_mask();
    }
}

struct Attributes(libc::pthread_attr_t);

impl Attributes {
    fn new(stack_bytes: usize) -> io::Result<Self> {
        let mut new = MaybeUninit::uninit();
        // SAFETY: writes all of it.
        checked(unsafe { libc::pthread_attr_init(new.as_mut_ptr()) })?;
        // SAFETY: written above.
        let mut new = Self(unsafe { new.assume_init() });
        // SAFETY: asks for a number.
        let least = unsafe { libc::sysconf(libc::_SC_THREAD_STACK_MIN) };
        let bytes = stack_bytes.max(usize::try_from(least).unwrap_or_default());
        // SAFETY: initialized above.
        checked(unsafe { libc::pthread_attr_setstacksize(&raw mut new.0, bytes) })?;
        Ok(new)
    }

    /// A thread that takes `start`, unless it cannot be created.
    fn create(&self, start: *mut Start) -> io::Result<Thread> {
        let mut thread = MaybeUninit::uninit();
        // SAFETY: the attributes are initialized, and `run` takes what `start` points to.
        checked(unsafe { libc::pthread_create(thread.as_mut_ptr(), &raw const self.0, run, start.cast()) })?;
        // SAFETY: a thread was created, and so this was written.
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
    // SAFETY: the box that `Thread::start` has made for this thread alone.
    let Start { name, work } = *unsafe { Box::from_raw(start.cast::<Start>()) };
    // SAFETY: asks who this is.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: this very thread, and a string. A name that is not set is no loss.
    unsafe { libc::pthread_setname_np(this, name.as_ptr()) };
    IS_OWN.set(true);
    if catch_unwind(AssertUnwindSafe(work)).is_err()
        && let Some(panic) = PANIC.take()
    {
        // The logger is the host's, and may panic, too.
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
    fn work_is_done_by_the_time_it_is_joined() {
        let done = Arc::new(AtomicBool::new(false));
        let thread = Thread::start(c"test", 128 << 10, {
            let done = done.clone();
            move || done.store(is_own(), Relaxed)
        });
        thread.unwrap().join();
        assert!(done.load(Relaxed) && !is_own());
    }

    #[test]
    fn a_thread_that_is_not_joined_goes_on() {
        let (tell, told) = channel();
        drop(Thread::start(c"test", 0, move || tell.send(7).unwrap()).unwrap());
        assert_eq!(told.recv(), Ok(7));
    }

    #[test]
    fn work_is_dropped_if_there_is_no_thread() {
        let work = Arc::new(());
        let kept = Arc::downgrade(&work);
        assert!(Thread::start(c"test", usize::MAX / 2, move || drop(work)).is_err());
        assert_eq!(kept.strong_count(), 0);
    }

    #[test]
    fn batch_is_for_one_thread_alone() {
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
    fn a_panic_ends_the_thread_alone() {
        let thread = Thread::start(c"test", 128 << 10, || std::panic::resume_unwind(Box::new(())));
        thread.unwrap().join();
    }
}
