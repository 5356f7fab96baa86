//! What there is to know about fork: whether this process is still the one that made a thing, and which
//! descriptors a child must not keep. Knows no socket and no lock broker.
//!
//! A forked child has its parent's memory and descriptors, but none of its other threads. If it used a
//! session of its parent's, both would be the same owner; if it merely kept the connection open, the
//! parent's locks would outlive the parent. So whatever is not to be inherited has an [`Epoch`], which
//! no longer is the current one in the child, and every descriptor is a [`Descriptor`], which the child
//! closes before it runs anything else. What every process has one of is a [`OneEachProcess`].
#![expect(unsafe_code, reason = "fork handlers are registered with libc, and called by it")]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::broker::sync::ProcessMutex;

/// How large a mapping for the epoch is asked for: a page, whatever its size.
const MARK_BYTES: usize = size_of::<AtomicU32>();

/// Where the current epoch is kept; zero in a child that has not asked for one yet. Null until somebody
/// asks for the first time. A mapping that the kernel wipes in every child, also in one that was made past
/// the fork handlers (`_Fork`, clone(2)); where there can be none, `PLAIN`, which the handlers alone wipe.
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
static PLAIN: AtomicU32 = AtomicU32::new(0);

/// The highest epoch that this process or an ancestor has had.
static NEWEST: AtomicU32 = AtomicU32::new(0);

/// The descriptors that a child closes. Locked while one is made or closed, and throughout a fork: so the
/// child's copy is whole, and there is none that it does not know of.
static OPEN: ProcessMutex<Open> = ProcessMutex::new(Open { bits: Vec::new() });

/// A process, told apart from those it was forked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u32);

impl Epoch {
    /// The epoch of this process.
    pub(crate) fn current() -> Self {
        let mark = match mark() {
            Some(mark) => mark,
            None => begin(),
        };
        match mark.load(Relaxed) {
            0 => renew(mark),
            epoch => Self(epoch),
        }
    }

    /// Whether this process is the one whose epoch this is, and not a child of it.
    pub(crate) fn is_current(self) -> bool {
        mark().is_some_and(|mark| mark.load(Relaxed) == self.0)
    }
}

fn mark() -> Option<&'static AtomicU32> {
    // SAFETY: what `MARK` points to is `PLAIN` or a mapping that is never unmapped; both are aligned for
    // an `AtomicU32`, initialized (a wiped mapping reads as zero) and only ever used as one.
    unsafe { MARK.load(Acquire).as_ref() }
}

/// Registers the fork handlers and sets up the mark, once in the life of a process and its descendants.
///
/// A child that another thread forks in this very moment would find `OPEN` locked for ever; it is the one
/// moment in which nothing can be done about it, and long before such a program has anything to inherit.
#[cold]
fn begin() -> &'static AtomicU32 {
    let open = OPEN.lock();
    if let Some(mark) = mark() {
        return mark;
    }
    // SAFETY: the handlers are functions that live as long as the library, which is never unloaded.
    // It fails for lack of memory only; then children made past the handlers are still found out.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
    let mark = wiped_mapping().unwrap_or(&PLAIN);
    MARK.store(ptr::from_ref(mark).cast_mut(), Release);
    drop(open);
    mark
}

fn wiped_mapping() -> Option<&'static AtomicU32> {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new anonymous mapping, wherever there is room, affects no other memory.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), MARK_BYTES, access, flags) }.ok()?;
    // SAFETY: the advice is about the page just mapped, which holds nothing yet.
    unsafe { madvise(page, MARK_BYTES, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: the page is aligned, reads as zero, which is an `AtomicU32`, and is never unmapped.
    Some(unsafe { &*page.cast::<AtomicU32>() })
}

#[cold]
fn renew(mark: &AtomicU32) -> Epoch {
    // In a child that was made past the handlers this is still the list of its parent's descriptors, and
    // their numbers may be other files by now. Elsewhere it is empty.
    if let Some(mut open) = OPEN.try_lock()
        && mark.load(Relaxed) == 0
    {
        open.bits.clear();
    }
    let next = NEWEST.fetch_add(1, Relaxed) + 1;
    // Another thread may be at it too: the first one decides for both.
    Epoch(mark.compare_exchange(0, next, Relaxed, Relaxed).map_or_else(|first| first, |_| next))
}

extern "C" fn before_fork() {
    let _until_after = ManuallyDrop::new(OPEN.lock());
}

extern "C" fn in_parent() {
    // SAFETY: this thread has locked it in `before_fork`.
    unsafe { OPEN.force_unlock() };
}

extern "C" fn in_child() {
    if let Some(mark) = mark() {
        mark.store(0, Relaxed);
    }
    // SAFETY: this thread, the child's only one, has locked it in `before_fork`.
    let open = unsafe { &mut *OPEN.data_ptr() };
    open.close_all();
    // SAFETY: as above, and `open` is not used any more.
    unsafe { OPEN.force_unlock() };
}

/// Something of this process that a forked child neither uses nor drops: a thread that only the parent has
/// may have been at work on it, and drops have effects on others.
#[derive(Debug)]
pub(crate) struct OfThisProcess<T> {
    thing: ManuallyDrop<T>,
    epoch: Epoch,
}

impl<T> OfThisProcess<T> {
    pub(crate) fn new(thing: T) -> Self {
        Self { thing: ManuallyDrop::new(thing), epoch: Epoch::current() }
    }

    /// The thing; `None` in a child of the process that made it.
    pub(crate) fn get(&self) -> Option<&T> {
        self.epoch.is_current().then(|| &*self.thing)
    }
}

impl<T> Drop for OfThisProcess<T> {
    fn drop(&mut self) {
        if self.epoch.is_current() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.thing) };
        }
    }
}

/// Something that each process has one of, made when it is first asked for and never freed. One inherited
/// through fork is replaced, and leaks: whatever the parent's threads were doing with it, the child cannot
/// tell.
pub(crate) struct OneEachProcess<T>(AtomicPtr<OfThisProcess<T>>);

impl<T: Sync + 'static> OneEachProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// This process's own. Of several that are made at once the first one counts.
    pub(crate) fn get(&self, make: impl Fn() -> T) -> &'static T {
        let mut known = self.0.load(Acquire);
        loop {
            // SAFETY: null, or a box that was leaked below and is never freed.
            if let Some(own) = unsafe { known.as_ref() }.and_then(OfThisProcess::get) {
                return own;
            }
            let new = Box::into_raw(Box::new(OfThisProcess::new(make())));
            known = match self.0.compare_exchange(known, new, AcqRel, Acquire) {
                Ok(_) => new,
                Err(others) => {
                    // SAFETY: the box made above, which nobody else has seen.
                    drop(unsafe { Box::from_raw(new) });
                    others
                }
            }
        }
    }
}

/// A set of descriptors, a bit for each.
struct Open {
    bits: Vec<u64>,
}

impl Open {
    fn place(descriptor: RawFd) -> (usize, u64) {
        let number = usize::try_from(descriptor).unwrap_or_default();
        (number / 64, 1 << (number % 64))
    }

    fn insert(&mut self, descriptor: RawFd) {
        let (word, bit) = Self::place(descriptor);
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= bit;
    }

    fn remove(&mut self, descriptor: RawFd) {
        let (word, bit) = Self::place(descriptor);
        self.bits[word] &= !bit;
    }

    /// Allocates nothing: it runs in a child of a process with threads.
    fn close_all(&mut self) {
        for (word, bits) in (0..).zip(&mut self.bits) {
            for bit in (0..64).filter(|bit| *bits & (1 << bit) != 0) {
                // SAFETY: the child's copy of a descriptor that is registered, hence open, and that
                // nothing in the child uses: `Descriptor` does not even close it, its epoch being over.
                unsafe { libc::close(word * 64 + bit) };
            }
            *bits = 0;
        }
    }
}

/// A descriptor that forked children do not keep: each closes its copy before it runs anything else.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: ManuallyDrop<OwnedFd>,
    epoch: Epoch,
}

impl Descriptor {
    /// Has a descriptor made. No fork comes in between, so `make` must not wait for anything.
    pub(crate) fn open(make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<Self> {
        let epoch = Epoch::current();
        let mut open = OPEN.lock();
        let fd = make()?;
        open.insert(fd.as_raw_fd());
        drop(open);
        Ok(Self { fd: ManuallyDrop::new(fd), epoch })
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // In a child it is closed already, and its number may be another file's.
        if self.epoch.is_current() {
            let mut open = OPEN.lock();
            open.remove(self.fd.as_raw_fd());
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}
