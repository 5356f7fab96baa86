//! The primitives of [`super`] for a model checker, with the interface of the ordinary ones, and a
//! clock that advances only when a scenario says so. Knows nothing of locks by name.
//!
//! `Arc` is the ordinary one, since nothing here depends on when the last reference is dropped.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

#[cfg(explore = "loom")]
use loom::sync;
#[cfg(explore = "loom")]
pub(crate) use loom::{lazy_static, thread};
use rustix::time::{ClockId, Timespec};
#[cfg(explore = "shuttle")]
use shuttle::sync;
#[cfg(explore = "shuttle")]
pub(crate) use shuttle::{lazy_static, thread};
pub(crate) use sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence};

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)) }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = match self.0.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: self, guard: Some(guard) })
    }
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` while the mutex is unlocked in between.
    guard: Option<sync::MutexGuard<'a, T>>,
}

impl<T> MutexGuard<'_, T> {
    pub(crate) fn unlocked<R>(this: &mut Self, work: impl FnOnce() -> R) -> R {
        this.guard = None;
        let result = work();
        this.guard = this.mutex.lock().guard;
        result
    }
}

const UNLOCKED: &str = "a guard is not used while its mutex is unlocked";

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "only a model checker runs this")]
    fn deref(&self) -> &T {
        self.guard.as_ref().expect(UNLOCKED)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[expect(clippy::expect_used, reason = "only a model checker runs this")]
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect(UNLOCKED)
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is set once. Other threads may see that late, as with the ordinary one.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: AtomicBool,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { value: std::sync::OnceLock::new(), is_set: AtomicBool::new(false) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.is_set.load(sync::atomic::Ordering::Acquire).then(|| self.value.get()).flatten()
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let value = self.value.get_or_init(make);
        self.is_set.store(true, sync::atomic::Ordering::Release);
        value
    }
}

/// Built on the checker's condition variable, which has no time limits.
#[derive(Default)]
pub(crate) struct Condvar(Arc<Sleepers>);

#[derive(Default)]
struct Sleepers {
    asleep: sync::Mutex<Asleep>,
    changed: sync::Condvar,
}

/// The sleeping threads, by numbers of their own, in the order in which they fell asleep.
#[derive(Default)]
struct Asleep {
    numbers: Vec<u64>,
    next: u64,
}

impl Sleepers {
    /// Wakes the threads whose numbers `which` removes.
    fn wake(&self, which: impl FnOnce(&mut Vec<u64>)) {
        which(&mut self.asleep.lock().unwrap_or_else(PoisonError::into_inner).numbers);
        self.changed.notify_all();
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.sleep(guard, |_| true)
    }

    /// The limit counts from the moment at which this thread last read the clock.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> (MutexGuard<'a, T>, ()) {
        let falls_asleep = |number| !Time::passes() || TIME.lock().add_sleeper(&self.0, number, limit);
        (self.sleep(guard, falls_asleep), ())
    }

    /// Sleeps with the mutex unlocked. The thread is entered as asleep before that, so it misses no
    /// wake-up.
    fn sleep<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        falls_asleep: impl FnOnce(u64) -> bool,
    ) -> MutexGuard<'a, T> {
        let mut asleep = self.0.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        let number = asleep.next;
        asleep.next += 1;
        if falls_asleep(number) {
            asleep.numbers.push(number);
            MutexGuard::unlocked(&mut guard, || {
                while asleep.numbers.contains(&number) {
                    asleep = self.0.changed.wait(asleep).unwrap_or_else(PoisonError::into_inner);
                }
                drop(asleep);
            });
        }
        guard
    }

    pub(crate) fn notify_one(&self) {
        self.0.wake(|numbers| {
            numbers.drain(..numbers.len().min(1));
        });
    }

    pub(crate) fn notify_all(&self) {
        self.0.wake(Vec::clear);
    }
}

lazy_static! {
    static ref TIME: Mutex<Time> = Mutex::default();
}

thread_local! {
    /// All threads of a scenario run in one thread of the system, which the checker switches
    /// between.
    static TIME_PASSES: Cell<bool> = const { Cell::new(false) };
}

/// The time that has passed, and the threads that sleep until a later time.
#[derive(Default)]
pub(crate) struct Time {
    passed: Duration,
    /// The time that each thread has last read.
    known: Vec<(thread::ThreadId, Duration)>,
    sleepers: Vec<(Duration, Arc<Sleepers>, u64)>,
}

impl Time {
    fn passes() -> bool {
        TIME_PASSES.get()
    }

    /// Whether [`pass`](Self::pass) will be called. If not, reading the clock is no step of a
    /// scenario.
    pub(crate) fn set_passes(passes: bool) {
        TIME_PASSES.set(passes);
    }

    /// Lets time pass, and wakes the threads whose limits are reached. Threads that wait without a
    /// limit continue to wait.
    pub(crate) fn pass(duration: Duration) {
        let mut time = TIME.lock();
        time.passed += duration;
        let passed = time.passed;
        let (over, others) = std::mem::take(&mut time.sleepers).into_iter().partition(|s| s.0 <= passed);
        time.sleepers = others;
        drop(time);
        let over: Vec<_> = over;
        for (_, sleepers, sleeper) in over {
            sleepers.wake(|numbers| numbers.retain(|&number| number != sleeper));
        }
    }

    /// Reads the clock for the current thread.
    fn read(&mut self) -> Duration {
        let (this, passed) = (thread::current().id(), self.passed);
        self.known.retain(|(thread, _)| *thread != this);
        self.known.push((this, passed));
        passed
    }

    /// Enters a sleeper that is to be woken after `limit`. False if that has passed already.
    fn add_sleeper(&mut self, sleepers: &Arc<Sleepers>, sleeper: u64, limit: Duration) -> bool {
        let this = thread::current().id();
        let known = self.known.iter().find(|(thread, _)| *thread == this);
        let until = known.map_or(Duration::ZERO, |(_, passed)| *passed).saturating_add(limit);
        self.sleepers.push((until, sleepers.clone(), sleeper));
        self.passed < until
    }
}

/// Only [`Time::pass`] advances the monotonic clock. The other clocks stand still.
pub(crate) fn clock_gettime(clock: ClockId) -> Timespec {
    let reads = Time::passes() && matches!(clock, ClockId::Monotonic);
    let passed = if reads { TIME.lock().read() } else { Duration::ZERO };
    let nanoseconds = i64::from(passed.subsec_nanos());
    Timespec { tv_sec: 1_000_000 + i64::try_from(passed.as_secs()).unwrap_or(0), tv_nsec: nanoseconds }
}
