//! What a forked child must not inherit: values that it must neither use nor drop, and descriptors
//! that it must close. Knows no socket and no broker.
//!
//! A forked child has its parent's memory and descriptors, but none of its other threads. If the
//! child used a session of its parent, both would be the same owner. If it only kept the connection
//! open, the parent's locks would outlive the parent. So each such value remembers its
//! [`ProcessIdentity`], which in a child is not the current one ([`NotInherited`]), and each
//! descriptor is a [`CloseOnForkFd`], which a child closes before it runs anything else. A value
//! that each process makes for itself is a [`ProcessLocal`].
#![expect(unsafe_code, reason = "fork handlers are registered with libc, and called by it")]

use std::ffi::c_int;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::os::sync::ProcessMutex;

/// The size of the mapping for the identity. The kernel rounds it up to a page.
const IDENTITY_BYTES: usize = size_of::<AtomicU32>();

/// Points to the number of this process's identity; null until the first use. The number is zero in
/// a child that has not asked for its identity yet. It is in a mapping that the kernel wipes in
/// every child, even in one that is made without the fork handlers (by `_Fork` or clone(2)). If
/// there can be no such mapping, it is in `WIPED_BY_HANDLER`, which only the fork handler wipes.
static IDENTITY: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
static WIPED_BY_HANDLER: AtomicU32 = AtomicU32::new(0);

/// The highest number that this process or an ancestor has had.
static LAST_IDENTITY: AtomicU32 = AtomicU32::new(0);

/// The descriptors that a child closes. Locked while a descriptor is made or closed, and throughout
/// a fork. So the child's copy of the table is complete.
static OPEN: ProcessMutex<DescriptorTable> = ProcessMutex::new(DescriptorTable { files: Vec::new() });

/// Marks files that cannot be told apart by their inode. It is the number of the signal that such a
/// file would raise for asynchronous I/O, which is never turned on.
const MARK_SIGNAL: c_int = 64;
/// From fcntl.h; the same on every architecture that Rust supports.
const F_SETSIG: c_int = 10;
const F_GETSIG: c_int = 11;

/// Tells a process from the processes that it was forked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProcessIdentity(u32);

impl ProcessIdentity {
    /// The identity of this process.
    fn current() -> Self {
        let number = match number() {
            Some(number) => number,
            None => initialize(),
        };
        match number.load(Relaxed) {
            0 => renew(number),
            known => Self(known),
        }
    }

    /// Whether this is the identity of this process, which then is not a child of the one that made
    /// it.
    fn is_current(self) -> bool {
        number().is_some_and(|number| number.load(Relaxed) == self.0)
    }
}

fn number() -> Option<&'static AtomicU32> {
    // SAFETY: `IDENTITY` points to `WIPED_BY_HANDLER` or to a mapping that is never unmapped. Both
    // are aligned for an `AtomicU32`, initialized (a wiped mapping reads as zero) and only ever
    // used as one.
    unsafe { IDENTITY.load(Acquire).as_ref() }
}

/// Registers the fork handlers and sets up the number, once for a process and all its descendants.
///
/// If another thread forks during this first call, `OPEN` stays locked in its child for ever. This
/// cannot be prevented. The parent has opened nothing yet that the child could inherit, but the
/// child must not use the library.
#[cold]
fn initialize() -> &'static AtomicU32 {
    let open = OPEN.lock();
    if let Some(number) = number() {
        return number;
    }
    // SAFETY: the handlers are functions that live as long as the library, which is never unloaded.
    // The call fails only for lack of memory. Then children are still recognized by the wiped
    // mapping.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
    let number = wiped_mapping().unwrap_or(&WIPED_BY_HANDLER);
    IDENTITY.store(ptr::from_ref(number).cast_mut(), Release);
    drop(open);
    number
}

fn wiped_mapping() -> Option<&'static AtomicU32> {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new anonymous mapping, at an address that the kernel chooses, affects no other
    // memory.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), IDENTITY_BYTES, access, flags) }.ok()?;
    // SAFETY: the advice is about the page that was just mapped, which holds nothing yet.
    unsafe { madvise(page, IDENTITY_BYTES, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: the page is aligned, reads as zero, which is a valid `AtomicU32`, and is never
    // unmapped.
    Some(unsafe { &*page.cast::<AtomicU32>() })
}

/// Gives a child its identity.
#[cold]
fn renew(number: &AtomicU32) -> ProcessIdentity {
    // In a child that was made without the handlers, this is still the table of the parent's
    // descriptors, and their numbers may stand for other files by now. In any other child it is
    // empty.
    if let Some(mut open) = OPEN.try_lock()
        && number.load(Relaxed) == 0
    {
        open.files.clear();
    }
    let next = LAST_IDENTITY.fetch_add(1, Relaxed) + 1;
    // If another thread does the same, the first of the two decides for both.
    ProcessIdentity(number.compare_exchange(0, next, Relaxed, Relaxed).map_or_else(|first| first, |_| next))
}

extern "C" fn before_fork() {
    let _until_after = ManuallyDrop::new(OPEN.lock());
}

extern "C" fn in_parent() {
    // SAFETY: this thread locked it in `before_fork`.
    unsafe { OPEN.force_unlock() };
}

extern "C" fn in_child() {
    if let Some(number) = number() {
        number.store(0, Relaxed);
    }
    // SAFETY: this thread, the only one of the child, locked it in `before_fork`.
    let open = unsafe { &mut *OPEN.data_ptr() };
    open.close_all();
    // SAFETY: as above, and `open` is not used any more.
    unsafe { OPEN.force_unlock() };
}

/// A value that a forked child neither uses nor drops. A thread of the parent, which the child does
/// not have, may have been changing it during the fork; and dropping it would have effects outside
/// the process.
#[derive(Debug)]
pub(crate) struct NotInherited<T> {
    value: ManuallyDrop<T>,
    process: ProcessIdentity,
}

impl<T> NotInherited<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), process: ProcessIdentity::current() }
    }

    /// The value; `None` in a child of the process that made it.
    pub(crate) fn get(&self) -> Option<&T> {
        self.process.is_current().then(|| &*self.value)
    }
}

impl<T> Drop for NotInherited<T> {
    fn drop(&mut self) {
        if self.process.is_current() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

/// A value that each process makes for itself, at its first use, and never frees. A child makes a
/// new one and leaks the inherited one, since it cannot know what the parent's threads were doing
/// with that.
pub(crate) struct ProcessLocal<T>(AtomicPtr<NotInherited<T>>);

impl<T: Sync + 'static> ProcessLocal<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value of this process. If several threads make one at once, the first one is kept.
    pub(crate) fn get(&self, make: impl Fn() -> T) -> &'static T {
        let mut known = self.0.load(Acquire);
        loop {
            // SAFETY: the pointer is null, or of a box that was leaked below and is never freed.
            if let Some(own) = unsafe { known.as_ref() }.and_then(NotInherited::get) {
                return own;
            }
            let new = Box::into_raw(Box::new(NotInherited::new(make())));
            known = match self.0.compare_exchange(known, new, AcqRel, Acquire) {
                Ok(_) => new,
                Err(others) => {
                    // SAFETY: the box made above, which no other thread has seen.
                    drop(unsafe { Box::from_raw(new) });
                    others
                }
            }
        }
    }
}

/// The file that a descriptor was made for. A program may close descriptors that it does not own (a
/// program that becomes a daemon closes all of them). Then their numbers are given to other files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileIdentity {
    /// The device and inode of the file.
    Inode(u64, u64),
    /// The file shares its inode with others, so it has been marked. The number is different for
    /// each marked file.
    Marked(u64),
}

impl FileIdentity {
    fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let status = rustix::fs::fstat(fd)?;
        Ok(Self::Inode(status.st_dev, status.st_ino))
    }

    fn mark(fd: BorrowedFd<'_>) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // SAFETY: sets a number of a file, whose descriptor is open while it is borrowed.
        match unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, MARK_SIGNAL) } {
            0 => Ok(Self::Marked(NEXT.fetch_add(1, Relaxed))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the descriptor still stands for this file. Allocates nothing and takes no lock.
    fn is_of(self, fd: RawFd) -> bool {
        match self {
            Self::Inode(..) => {
                // SAFETY: borrowed for one question to the kernel, which reports an error if
                // nothing is open there.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                Self::of(fd) == Ok(self)
            }
            // SAFETY: reads a number of the descriptor's file, or fails if nothing is open there.
            Self::Marked(_) => unsafe { libc::fcntl(fd, F_GETSIG) == MARK_SIGNAL },
        }
    }
}

/// The files of open descriptors, by the numbers of the descriptors.
struct DescriptorTable {
    files: Vec<Option<FileIdentity>>,
}

impl DescriptorTable {
    fn index(descriptor: RawFd) -> usize {
        usize::try_from(descriptor).unwrap_or_default()
    }

    fn insert(&mut self, descriptor: RawFd, identity: FileIdentity) {
        let index = Self::index(descriptor);
        if index >= self.files.len() {
            self.files.resize(index + 1, None);
        }
        self.files[index] = Some(identity);
    }

    /// False if the number has been given to another descriptor since.
    fn remove(&mut self, descriptor: RawFd, identity: FileIdentity) -> bool {
        let found = self.files.get_mut(Self::index(descriptor)).filter(|file| **file == Some(identity));
        found.map(|file| *file = None).is_some()
    }

    /// Allocates nothing, since it runs in the child of a process with threads.
    fn close_all(&mut self) {
        for (descriptor, file) in (0..).zip(&mut self.files) {
            if file.take().is_some_and(|identity| identity.is_of(descriptor)) {
                // SAFETY: the child's copy of a descriptor that nothing in the child uses.
                // `CloseOnForkFd` does not close it there, since it is of another process.
                unsafe { rustix::io::close(descriptor) };
            }
        }
    }
}

/// A copy of the descriptor, as it would be after it was handed over: it can be [taken
/// over](CloseOnForkFd::take_over).
#[cfg(test)]
pub(crate) fn copy_to_hand_over(number: RawFd) -> io::Result<RawFd> {
    // SAFETY: makes a new descriptor, or fails if nothing is open there.
    match unsafe { libc::fcntl(number, libc::F_DUPFD, 0) } {
        -1 => Err(io::Error::last_os_error()),
        copy => Ok(copy),
    }
}

/// A descriptor that forked children do not keep: each closes its copy before it runs anything
/// else.
#[derive(Debug)]
pub(crate) struct CloseOnForkFd {
    fd: ManuallyDrop<OwnedFd>,
    identity: FileIdentity,
    process: ProcessIdentity,
}

impl CloseOnForkFd {
    /// Registers the descriptor that `make` opens, for a file with an inode of its own, such as a
    /// socket. No fork happens meanwhile, so `make` must not wait for anything.
    pub(crate) fn open(make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<Self> {
        Self::enter(make, |fd| Ok(FileIdentity::of(fd)?))
    }

    /// The same for a file without an inode of its own: an eventfd or an epoll instance.
    pub(crate) fn open_anonymous(make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<Self> {
        Self::enter(make, FileIdentity::mark)
    }

    /// Takes over a descriptor that this process has had since its image was replaced by execve(2),
    /// and sets that it is closed on the next one.
    ///
    /// # Errors
    /// If nothing is open there, or it was not handed over: it is closed on exec, as everything that
    /// this process opens itself, or has been taken over already.
    pub(crate) fn take_over(number: RawFd) -> io::Result<Self> {
        Self::enter(|| handed_over(number), |fd| Ok(FileIdentity::of(fd)?))
    }

    fn enter(
        make: impl FnOnce() -> io::Result<OwnedFd>,
        identify: impl FnOnce(BorrowedFd<'_>) -> io::Result<FileIdentity>,
    ) -> io::Result<Self> {
        let process = ProcessIdentity::current();
        let mut open = OPEN.lock();
        let fd = make()?;
        let identity = identify(fd.as_fd())?;
        open.insert(fd.as_raw_fd(), identity);
        drop(open);
        Ok(Self { fd: ManuallyDrop::new(fd), identity, process })
    }

    /// Whether its number still stands for the file that was opened. False once another part of the
    /// program has closed it, since its number may then stand for another file. Always false in a
    /// child.
    pub(crate) fn is_intact(&self) -> bool {
        self.process.is_current() && self.identity.is_of(self.fd.as_raw_fd())
    }
}

/// The descriptor with this number, if it was handed over through execve(2).
fn handed_over(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: reads a number of the descriptor, or fails if nothing is open there.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::other("the descriptor was not handed over"));
    }
    // SAFETY: sets a flag of a descriptor that has just been found open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nothing in this process owns it: whatever opens a descriptor here has
    // it closed on exec, and so has this function, which is called with `OPEN` locked.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

impl AsFd for CloseOnForkFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for CloseOnForkFd {
    fn drop(&mut self) {
        // In a child it is closed already, and its number may stand for another file.
        if self.process.is_current() {
            let mut open = OPEN.lock();
            if open.remove(self.fd.as_raw_fd(), self.identity) && self.is_intact() {
                // SAFETY: this owns the descriptor, and closes it here and nowhere else. Not
                // through libc, where close is a cancellation point: a thread that is being
                // cancelled would end there.
                unsafe { rustix::io::close(self.fd.as_raw_fd()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::IntoRawFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    const KINDS: [fn() -> io::Result<CloseOnForkFd>; 2] = [
        || CloseOnForkFd::open(|| Ok(std::io::pipe()?.0.into())),
        || CloseOnForkFd::open_anonymous(|| Ok(eventfd(0, EventfdFlags::CLOEXEC)?)),
    ];

    /// The number of the descriptor, as another part of the program could use it.
    fn number_of(descriptor: &CloseOnForkFd) -> ManuallyDrop<OwnedFd> {
        // SAFETY: the test gives the number to another file, and owns that.
        ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(descriptor.fd.as_raw_fd()) })
    }

    fn other_files() -> [OwnedFd; 3] {
        let another = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        [File::open("/dev/null").unwrap().into(), std::io::pipe().unwrap().0.into(), another]
    }

    #[test]
    fn a_number_that_was_given_to_another_file_is_left_alone() {
        for (make, other) in KINDS.iter().flat_map(|make| other_files().map(|other| (make, other))) {
            let descriptor = make().unwrap();
            assert!(descriptor.is_intact());
            let mut number = number_of(&descriptor);
            rustix::io::dup2(&other, &mut number).unwrap();
            assert!(!descriptor.is_intact());
            let mut open = DescriptorTable { files: Vec::new() };
            open.insert(descriptor.fd.as_raw_fd(), descriptor.identity);
            open.close_all();
            drop(descriptor);
            assert_eq!(FileIdentity::of(number.as_fd()), FileIdentity::of(other.as_fd()), "it is not closed");
            drop(ManuallyDrop::into_inner(number));
        }
    }

    #[test]
    fn only_a_descriptor_that_was_handed_over_is_taken_over_and_once() {
        let own = KINDS[0]().unwrap();
        assert!(CloseOnForkFd::take_over(own.as_fd().as_raw_fd()).is_err());
        let handed = rustix::io::dup(&own).unwrap().into_raw_fd();
        let taken = CloseOnForkFd::take_over(handed).unwrap();
        assert!(taken.is_intact() && taken.as_fd().as_raw_fd() == handed);
        assert!(CloseOnForkFd::take_over(handed).is_err());
        let flags = rustix::io::fcntl_getfd(&taken).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        drop(taken);
        assert!(CloseOnForkFd::take_over(-1).is_err());
    }

    #[test]
    fn a_number_that_was_given_to_another_registered_file_is_left_to_that_one() {
        let first = KINDS[1]().unwrap();
        let number = number_of(&first);
        let second = CloseOnForkFd::open_anonymous(|| {
            let mut number = number_of(&first);
            rustix::io::dup2(eventfd(0, EventfdFlags::CLOEXEC)?, &mut number)?;
            Ok(ManuallyDrop::into_inner(number))
        });
        let second = second.unwrap();
        drop(first);
        assert!(second.is_intact());
        assert!(OPEN.lock().files[DescriptorTable::index(number.as_raw_fd())] == Some(second.identity));
    }
}
