//! The state directory on disk: held by one process at a time, with one small file that is replaced whole.
//! Knows what the file is for, and nothing of brokers.
//!
//! It may belong to another user than this process, and so may what is around it. A process with privileges must not
//! give away, empty or overwrite what a link there leads to: links are followed only where an administrator made them,
//! and owners are changed on what was opened.

use std::ffi::{CStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, Uid, flock, fstat, fsync, openat, readlinkat, renameat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::os::fork::Descriptor;
use crate::server::state_dir::record::{RECORD_BYTES_MAX, Record};

const FILE: &CStr = c"state";
const NEW_FILE: &CStr = c"state.new";
/// How many links may lead to a state directory, one after the other.
const LINKS_MAX: usize = 8;

/// A state directory that no other process has.
pub(super) struct Directory {
    /// Locked for as long as it is open. The files are found through it, wherever it is moved.
    fd: Descriptor,
    path: PathBuf,
}

impl Directory {
    /// Takes the directory, and makes it if it is not there.
    ///
    /// # Errors
    /// If that cannot be, or another process has it.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        let fd = make(path)?;
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { fd, path: path.to_owned() }),
            Err(Errno::WOULDBLOCK) => {
                Err(io::Error::new(io::ErrorKind::AddrInUse, "another lockd keeps its state there"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the last run has left; `None` if there was none.
    ///
    /// # Errors
    /// If it cannot be read, or not be understood.
    pub(super) fn read(&self) -> io::Result<Option<Record>> {
        let file = match openat(&self.fd, FILE, OFlags::RDONLY | EXACTLY, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        // One more than there can be, to see that there is no more.
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

    /// Puts the record in the place of the one before, so that either of them is found whatever happens, and
    /// this one from the moment on at which it returns.
    ///
    /// # Errors
    /// If that cannot be; then nobody can say which one will be found.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | EXACTLY;
        let make = || openat(&self.fd, NEW_FILE, flags, Mode::RUSR | Mode::WUSR);
        let made = match make() {
            // Left by a run that was killed; or it is something else, which must not be written to.
            Err(Errno::EXIST) => unlinkat(&self.fd, NEW_FILE, AtFlags::empty()).and_then(|()| make()),
            made => made,
        };
        let mut file = File::from(made?);
        file.write_all(record.encode().as_bytes())?;
        file.sync_all()?;
        renameat(&self.fd, NEW_FILE, &self.fd, FILE)?;
        Ok(fsync(&self.fd)?)
    }
}

/// What is there itself, and nothing that a link leads to; a pipe or a terminal is not waited for.
const EXACTLY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Makes a state directory, for its owner alone, unless there is one; and opens it.
///
/// # Errors
/// If it cannot be made, is no directory, or is behind a link of another user.
fn make(path: &Path) -> io::Result<Descriptor> {
    // With a slash at its end, a link would be followed by the kernel.
    let path: PathBuf = path.components().collect();
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => open(path),
    }
}

/// Makes a state directory as [`make`], and gives it to this user and group.
pub(super) fn make_for(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    fchown(make(path)?, Some(uid), Some(gid))
}

fn open(mut path: PathBuf) -> io::Result<Descriptor> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..LINKS_MAX {
        let found = Descriptor::open(|| Ok(rustix::fs::open(&path, flags, Mode::empty())?))?;
        let stat = fstat(&found)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // The very one that was looked at.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Descriptor::open(|| Ok(openat(&found, c".", flags, Mode::empty())?));
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
