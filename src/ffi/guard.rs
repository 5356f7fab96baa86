//! The guard that every function of the C ABI runs inside. A panic, which is a bug, becomes a
//! status here. Nothing is printed, because descriptor 2 of the host may be anything, for instance
//! a socket. And pthread_cancel cannot end a thread inside the library.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int};
use std::hash::RandomState;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::status::{Failure, lock_status, remember};
use crate::os::thread;

/// The types that exported functions return, and what they return on failure.
pub(super) trait Returned {
    fn failed(status: lock_status) -> Self;
}

impl Returned for lock_status {
    fn failed(status: lock_status) -> Self {
        status
    }
}

impl<T> Returned for *mut T {
    fn failed(_: lock_status) -> Self {
        ptr::null_mut()
    }
}

macro_rules! impl_returned {
    ($($type:ty => $failed:expr),*) => {
        $(impl Returned for $type {
            fn failed(_: lock_status) -> Self {
                $failed
            }
        })*
    };
}

// Texts, descriptors, versions and counts.
impl_returned!(*const c_char => c"".as_ptr(), c_int => -1, u32 => 0, usize => 0, () => ());

/// Runs the body of an exported function.
pub(super) fn guard<R: Returned>(body: impl FnOnce() -> Result<R, Failure>) -> R {
    let _until_return = Uncancellable::begin();
    guard_and(body, || ())
}

/// The same, for a body that reaches no cancellation point except in what
/// [`GuardedThread::prepare`] does beforehand. After a panic, `after_panic` must make sure that
/// what the body may have left half done is not used any more.
#[inline]
pub(super) fn guard_and<R: Returned>(
    body: impl FnOnce() -> Result<R, Failure>,
    after_panic: impl FnOnce(),
) -> R {
    THREAD.with(|thread| {
        if !thread.is_prepared.get() {
            thread.prepare();
        }
        let answer = || body().unwrap_or_else(|failure| failed(failure));
        thread.catch(answer).unwrap_or_else(|payload| {
            let failure = bug(&*payload);
            // If that panics as well, nothing more can be done.
            let _ = thread.catch(after_panic);
            failed(failure)
        })
    })
}

#[cold]
fn failed<R: Returned>(failure: Failure) -> R {
    let status = failure.status;
    remember(failure);
    R::failed(status)
}

/// While it lives, pthread_cancel has no effect on its thread: a cancellation would unwind through
/// Rust code, which aborts the process. A pending cancellation takes effect at the caller's next
/// cancellation point.
pub(super) struct Uncancellable {
    before: c_int,
}

/// From pthread.h; the same in glibc and musl.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

impl Uncancellable {
    pub(super) fn begin() -> Self {
        let mut before = PTHREAD_CANCEL_DISABLE;
        // SAFETY: changes only the calling thread's state, and writes the old state to a local
        // variable. With a valid state it cannot fail.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
        Self { before }
    }
}

impl Drop for Uncancellable {
    fn drop(&mut self) {
        let mut disabled = 0;
        // SAFETY: as in `begin`; the state is the one that the thread had before.
        unsafe { pthread_setcancelstate(self.before, &raw mut disabled) };
    }
}

/// What the guard knows of a thread. All in one variable: a shared library finds a thread's
/// variable by a function call, and does so once in each call.
struct GuardedThread {
    is_prepared: Cell<bool>,
    /// Whether it is inside `catch`.
    is_guarded: Cell<bool>,
}

thread_local! {
    // Has no destructor, so it can still be used while the thread ends.
    static THREAD: GuardedThread =
        const { GuardedThread { is_prepared: Cell::new(false), is_guarded: Cell::new(false) } };
    /// The message of this thread's last panic.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl GuardedThread {
    /// What the first call of a thread does, so that later ones need not.
    #[cold]
    fn prepare(&self) {
        let _until_return = Uncancellable::begin();
        // The first one in a thread asks the kernel for random numbers: a cancellation point.
        let _ = RandomState::new();
        // A thread that panics may not set the hook; the next one will.
        if !IS_QUIET.load(Relaxed) {
            if std::thread::panicking() {
                return;
            }
            silence_panics();
        }
        self.is_prepared.set(true);
    }

    /// Runs `work`; if it panics, the payload is the error. Calls nest where the library calls a
    /// function of the program, which may call the library.
    #[inline]
    fn catch<R>(&self, work: impl FnOnce() -> R) -> std::thread::Result<R> {
        let was_guarded = self.is_guarded.replace(true);
        // The broker itself and `after_panic` make sure that nothing half done is used.
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        self.is_guarded.set(was_guarded);
        result
    }
}

/// Why a call has failed that has just panicked.
#[cold]
fn bug(payload: &dyn Any) -> Failure {
    let said = PANIC.try_with(RefCell::take).ok().flatten();
    let said = said.unwrap_or_else(|| message(payload).to_owned());
    Failure::new(lock_status::LOCK_INTERNAL, format_args!("a bug in lockd: {said}"))
}

static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// From now on panics of this library print nothing. Panics of a Rust program around it go to the
/// hook that was installed before.
#[cold]
fn silence_panics() {
    if IS_QUIET.swap(true, Relaxed) {
        return;
    }
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if THREAD.with(|thread| thread.is_guarded.get()) {
            let _ = PANIC.try_with(|said| said.replace(Some(describe(info))));
        } else if thread::is_library_thread() {
            thread::log_after_unwind(describe(info));
        } else {
            before(info);
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    format!("{} ({place})", message(info.payload()))
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::sync::Mutex;

    use super::super::status;
    use super::*;

    fn last_error() -> String {
        // SAFETY: text of this thread, copied before its next call.
        unsafe { CStr::from_ptr(status::last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_a_status_with_its_message_as_the_error_text() {
        let mut is_cleaned_up = false;
        let status: lock_status = guard_and(|| panic!("it was {}", 7), || is_cleaned_up = true);
        assert_eq!(status, lock_status::LOCK_INTERNAL);
        assert!(is_cleaned_up);
        assert!(last_error().contains("it was 7") && last_error().contains("guard.rs"), "{}", last_error());
        let handle: *mut u8 = guard_and(|| panic!("again"), || panic!("and again"));
        assert!(handle.is_null() && last_error().contains("again"));
    }

    #[test]
    fn a_call_inside_another_one_leaves_it_guarded() {
        let status: lock_status = guard(|| {
            assert_eq!(guard(|| Ok(7)), 7);
            panic!("after it");
        });
        assert_eq!(status, lock_status::LOCK_INTERNAL);
        assert!(last_error().contains("after it (src/ffi/guard.rs"), "{}", last_error());
    }

    /// The events of the test below, in their order.
    static ORDER: Mutex<Vec<&str>> = Mutex::new(Vec::new());

    struct HeldByWork;

    impl Drop for HeldByWork {
        fn drop(&mut self) {
            ORDER.lock().unwrap().push("dropped");
        }
    }

    struct HostsLogger;

    impl log::Log for HostsLogger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            // Other tests log too.
            if record.args().to_string().contains("in a thread of the library") {
                ORDER.lock().unwrap().push("logged");
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_panic_in_a_thread_of_the_library_is_logged_after_unwinding() {
        log::set_logger(&HostsLogger).unwrap();
        log::set_max_level(log::LevelFilter::Error);
        assert_eq!(guard(|| Ok(7)), 7);
        let work = || {
            let _held = HeldByWork;
            panic!("in a thread of the library");
        };
        thread::Thread::start(c"test", 256 << 10, work).unwrap().join();
        assert_eq!(*ORDER.lock().unwrap(), ["dropped", "logged"]);
    }

    #[test]
    fn a_failure_is_remembered_and_a_success_does_not_change_it() {
        let failed: lock_status = guard(|| Err(Failure::invalid("a\0b")));
        assert_eq!((failed, last_error().as_str()), (lock_status::LOCK_INVALID, "a\\0b"));
        let done: c_int = guard(|| Ok(7));
        assert_eq!((done, last_error().as_str()), (7, "a\\0b"));
    }
}
