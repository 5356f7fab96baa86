//! The state directory on disk: used by one process at a time, with a small file that is replaced as
//! a whole, and one to which lines are appended. Knows the files and their purpose; nothing of
//! brokers.
//!
//! The directory, and the directories around it, may belong to another user than this process runs
//! as. A process with privileges must not be tricked by a symbolic link there into giving away,
//! emptying or overwriting another file. So links are followed only where an administrator made
//! them, and the owner is changed on the descriptor that was opened and checked, not on a path.

use std::ffi::{CStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, Uid, flock, fstat, fsync, openat, readlinkat, renameat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::os::fork::CloseOnForkFd;
use crate::server::keeper::record::{RECORD_BYTES_MAX, Record};
use crate::server::keeper::store::Store;
use crate::server::keeper::tombstones::{self, Tombstones};
use crate::wire::message::ResumeId;

const FILE: &CStr = c"state";
const NEW_FILE: &CStr = c"state.new";
const TOMBSTONES: &CStr = c"tombstones";
const NEW_TOMBSTONES: &CStr = c"tombstones.new";
/// The longest chain of symbolic links to a state directory that is followed.
const LINKS_MAX: usize = 8;

/// A state directory that this process has for itself.
pub(super) struct Directory {
    /// Locked while it is open. The files are opened relative to it, so the directory may be moved
    /// meanwhile.
    fd: CloseOnForkFd,
    path: PathBuf,
}

impl Directory {
    /// Locks the directory for this process, and makes it if it does not exist.
    ///
    /// # Errors
    /// If it cannot be opened, or another process has locked it.
    pub(super) fn lock(path: &Path) -> io::Result<Self> {
        let fd = open_or_make(path)?;
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { fd, path: path.to_owned() }),
            Err(Errno::WOULDBLOCK) => {
                Err(io::Error::new(io::ErrorKind::AddrInUse, "another lockd keeps its state there"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The same directory in a new image of the process, which has kept the descriptor, and with it
    /// the lock.
    ///
    /// # Errors
    /// If the descriptor is not that of a directory.
    pub(super) fn locked(path: &Path, fd: OwnedFd) -> io::Result<Self> {
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::Directory {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "the descriptor is of something else"));
        }
        Ok(Self { fd: CloseOnForkFd::open(|| Ok(fd))?, path: path.to_owned() })
    }

    /// Reads the record of the last run; `None` if there was no run before.
    ///
    /// # Errors
    /// If the file cannot be read, or is damaged or foreign.
    pub(super) fn read(&self) -> io::Result<Option<Record>> {
        let file = match openat(&self.fd, FILE, OFlags::RDONLY | EXACTLY, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        // One byte more than a record can have, so that a longer file is noticed.
        file.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        let unusable = |what: &str| {
            let file = self.path.join("state");
            let text = format!(
                "{} cannot be used: {what}. It was left as it is. Once no client can believe any more that \
                 it holds a lock, and nothing compares new fencing tokens with old ones, it may be removed",
                file.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        Record::parse(&bytes).map(Some).map_err(unusable)
    }

    /// All tombstones. Removes a line that was torn, so that others can follow.
    ///
    /// # Errors
    /// If the file cannot be read or replaced.
    pub(super) fn tombstones(&mut self) -> io::Result<Tombstones> {
        let mut bytes = Vec::new();
        match openat(&self.fd, TOMBSTONES, OFlags::RDONLY | EXACTLY, Mode::empty()) {
            Ok(file) => _ = File::from(file).read_to_end(&mut bytes)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let found = tombstones::parse(&bytes);
        if !found.is_damaged {
            let whole: Vec<ResumeId> = found.sessions.iter().copied().collect();
            self.keep_tombstones(&whole)?;
        }
        Ok(found)
    }

    /// Replaces a file as a whole.
    fn replace(&self, path: &CStr, new: &CStr, text: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | EXACTLY;
        let make = || openat(&self.fd, new, flags, Mode::RUSR | Mode::WUSR);
        let made = match make() {
            // Left by a run that was killed, or put there by somebody else. It must not be written
            // to.
            Err(Errno::EXIST) => unlinkat(&self.fd, new, AtFlags::empty()).and_then(|()| make()),
            made => made,
        };
        let mut file = File::from(made?);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        renameat(&self.fd, new, &self.fd, path)?;
        Ok(fsync(&self.fd)?)
    }
}

impl Store for Directory {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.replace(FILE, NEW_FILE, &record.encode())
    }

    fn add_tombstones(&mut self, sessions: &[ResumeId]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | EXACTLY;
        let file = match openat(&self.fd, TOMBSTONES, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                self.keep_tombstones(&[])?;
                openat(&self.fd, TOMBSTONES, flags, Mode::empty())?
            }
            opened => opened?,
        };
        let mut file = File::from(file);
        let length = file.metadata()?.len();
        let text = tombstones::encode(sessions);
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            // If this fails, too, the next run finds a line that makes no sense, and lets no
            // session resume.
            let _ = file.set_len(length);
        }
        written
    }

    fn keep_tombstones(&mut self, sessions: &[ResumeId]) -> io::Result<()> {
        self.replace(TOMBSTONES, NEW_TOMBSTONES, &tombstones::encode(sessions))
    }

    fn lock(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}

/// Opens the file itself: no symbolic link is followed, and opening a pipe or a terminal does not
/// block.
const EXACTLY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens a state directory, and makes it, accessible to its owner only, if it does not exist.
///
/// # Errors
/// If it cannot be made, is not a directory, or is reached through a symbolic link of another user.
fn open_or_make(path: &Path) -> io::Result<CloseOnForkFd> {
    // Without the slash at its end: with one, the kernel would follow a symbolic link.
    let path: PathBuf = path.components().collect();
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => open(path),
    }
}

/// Makes a state directory as [`open_or_make`] does, and gives it to this user and group.
pub(super) fn make_for(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    fchown(open_or_make(path)?, Some(uid), Some(gid))
}

/// Follows symbolic links step by step, and checks the owner of each.
fn open(mut path: PathBuf) -> io::Result<CloseOnForkFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..LINKS_MAX {
        let found = CloseOnForkFd::open(|| Ok(rustix::fs::open(&path, flags, Mode::empty())?))?;
        let stat = fstat(&found)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // Relative to the descriptor that was checked: the path may lead elsewhere by now.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return CloseOnForkFd::open(|| Ok(openat(&found, c".", flags, Mode::empty())?));
        }
        let owner = Uid::from_raw(stat.st_uid);
        if !owner.is_root() && owner != geteuid() {
            let text = "it is a symbolic link of another user, which is not followed";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let target = readlinkat(&found, c"", Vec::new())?.into_bytes();
        let target = PathBuf::from(OsString::from_vec(target));
        path = path.parent().unwrap_or(Path::new("")).join(target).components().collect();
    }
    Err(io::Error::from_raw_os_error(Errno::LOOP.raw_os_error()))
}
