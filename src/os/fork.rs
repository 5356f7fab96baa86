//! What there is to know about fork: whether this process is still the one that made a thing, and which
//! descriptors a child must not keep. Knows no socket and no lock broker.
//!
//! A forked child has its parent's memory and descriptors, but none of its other threads. If it used a
//! session of its parent's, both would be the same owner; if it merely kept the connection open, the
//! parent's locks would outlive the parent. So whatever is not to be inherited has an [`Epoch`], which
//! no longer is the current one in the child, and every descriptor is a [`Descriptor`], which the child
//! closes before it runs anything else. What every process has one of is a [`OneEachProcess`].
#![expect(unsafe_code, reason = "fork handlers are registered with libc, and called by it")]

use std::ffi::c_int;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::os::sync::ProcessMutex;

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
static OPEN: ProcessMutex<Open> = ProcessMutex::new(Open { files: Vec::new() });

/// Marks descriptors whose files all have the same inode: the signal they would raise if they were asked to
/// raise any, which they never are.
const MARK_SIGNAL: c_int = 64;
/// fcntl.h; the same on every architecture that Rust supports.
const F_SETSIG: c_int = 10;
const F_GETSIG: c_int = 11;

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
        open.files.clear();
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

/// What a descriptor stood for when it was made. A program may close descriptors that are not its own (one
/// that becomes a daemon closes all of them), and then their numbers are given to other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// The device and inode of its file.
    Inode(u64, u64),
    /// Its file shares its inode with others, and has been marked; which one of those marked it is.
    Marked(u64),
}

impl Identity {
    fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let status = rustix::fs::fstat(fd)?;
        Ok(Self::Inode(status.st_dev, status.st_ino))
    }

    fn mark(fd: BorrowedFd<'_>) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // SAFETY: sets a number of the file behind a descriptor that is open while it is borrowed.
        match unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, MARK_SIGNAL) } {
            0 => Ok(Self::Marked(NEXT.fetch_add(1, Relaxed))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the descriptor still stands for this. Allocates nothing and takes no lock.
    fn is_of(self, fd: RawFd) -> bool {
        match self {
            Self::Inode(..) => {
                // SAFETY: only asked what it is, and not beyond this call; should nothing be open there, the
                // kernel says so.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                Self::of(fd) == Ok(self)
            }
            // SAFETY: reads a number of the file behind the descriptor, if there is one.
            Self::Marked(_) => unsafe { libc::fcntl(fd, F_GETSIG) == MARK_SIGNAL },
        }
    }
}

/// Descriptors by their numbers, and what they stand for.
struct Open {
    files: Vec<Option<Identity>>,
}

impl Open {
    fn place(descriptor: RawFd) -> usize {
        usize::try_from(descriptor).unwrap_or_default()
    }

    fn insert(&mut self, descriptor: RawFd, identity: Identity) {
        let place = Self::place(descriptor);
        if place >= self.files.len() {
            self.files.resize(place + 1, None);
        }
        self.files[place] = Some(identity);
    }

    /// Whether it was there: not so if its number has been given to another one since.
    fn remove(&mut self, descriptor: RawFd, identity: Identity) -> bool {
        let found = self.files.get_mut(Self::place(descriptor)).filter(|file| **file == Some(identity));
        found.map(|file| *file = None).is_some()
    }

    /// Allocates nothing: it runs in a child of a process with threads.
    fn close_all(&mut self) {
        for (descriptor, file) in (0..).zip(&mut self.files) {
            if file.take().is_some_and(|identity| identity.is_of(descriptor)) {
                // SAFETY: the child's copy of a descriptor that nothing in the child uses: `Descriptor` does
                // not even close it, its epoch being over.
                unsafe { rustix::io::close(descriptor) };
            }
        }
    }
}

/// A descriptor that forked children do not keep: each closes its copy before it runs anything else.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: ManuallyDrop<OwnedFd>,
    identity: Identity,
    epoch: Epoch,
}

impl Descriptor {
    /// Has a descriptor made, of a file with an inode of its own (a socket, say). No fork comes in between,
    /// so `make` must not wait for anything.
    pub(crate) fn open(make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<Self> {
        Self::enter(make, |fd| Ok(Identity::of(fd)?))
    }

    /// The same for what has no inode of its own: an eventfd, or an epoll instance.
    pub(crate) fn open_anonymous(make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<Self> {
        Self::enter(make, Identity::mark)
    }

    fn enter(
        make: impl FnOnce() -> io::Result<OwnedFd>,
        identify: impl FnOnce(BorrowedFd<'_>) -> io::Result<Identity>,
    ) -> io::Result<Self> {
        let epoch = Epoch::current();
        let mut open = OPEN.lock();
        let fd = make()?;
        let identity = identify(fd.as_fd())?;
        open.insert(fd.as_raw_fd(), identity);
        drop(open);
        Ok(Self { fd: ManuallyDrop::new(fd), identity, epoch })
    }

    /// Whether its number still stands for what was made: not so once another part of the program has closed
    /// it, and perhaps something else has been given the number; nor in a child, which it does not belong to.
    pub(crate) fn is_intact(&self) -> bool {
        self.epoch.is_current() && self.identity.is_of(self.fd.as_raw_fd())
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
            if open.remove(self.fd.as_raw_fd(), self.identity) && self.is_intact() {
                // SAFETY: it is ours, so nobody else closes it; closed here and nowhere else. Not as libc
                // does it, where a thread that is being cancelled would end.
                unsafe { rustix::io::close(self.fd.as_raw_fd()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::FromRawFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    type Make = fn() -> io::Result<Descriptor>;

    const KINDS: [Make; 2] = [
        || Descriptor::open(|| Ok(std::io::pipe()?.0.into())),
        || Descriptor::open_anonymous(|| Ok(eventfd(0, EventfdFlags::CLOEXEC)?)),
    ];

    /// The number of the descriptor, as something that another part of the program has.
    fn number_of(descriptor: &Descriptor) -> ManuallyDrop<OwnedFd> {
        // SAFETY: the test gives the number to another file, which it then is the owner of.
        ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(descriptor.fd.as_raw_fd()) })
    }

    fn strangers() -> [OwnedFd; 3] {
        let another = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        [File::open("/dev/null").unwrap().into(), std::io::pipe().unwrap().0.into(), another]
    }

    #[test]
    fn a_number_that_was_given_to_another_file_is_left_alone() {
        for (make, stranger) in KINDS.iter().flat_map(|make| strangers().map(|other| (make, other))) {
            let descriptor = make().unwrap();
            assert!(descriptor.is_intact());
            let mut number = number_of(&descriptor);
            rustix::io::dup2(&stranger, &mut number).unwrap();
            assert!(!descriptor.is_intact());
            let mut open = Open { files: Vec::new() };
            open.insert(descriptor.fd.as_raw_fd(), descriptor.identity);
            open.close_all();
            drop(descriptor);
            assert_eq!(Identity::of(number.as_fd()), Identity::of(stranger.as_fd()), "it is not closed");
            drop(ManuallyDrop::into_inner(number));
        }
    }

    #[test]
    fn a_number_that_was_given_to_another_of_ours_is_left_to_that_one() {
        let first = KINDS[1]().unwrap();
        let number = number_of(&first);
        let second = Descriptor::open_anonymous(|| {
            let mut number = number_of(&first);
            rustix::io::dup2(eventfd(0, EventfdFlags::CLOEXEC)?, &mut number)?;
            Ok(ManuallyDrop::into_inner(number))
        });
        let second = second.unwrap();
        drop(first);
        assert!(second.is_intact());
        assert!(OPEN.lock().files[Open::place(number.as_raw_fd())] == Some(second.identity));
    }
}
