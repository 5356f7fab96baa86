//! The state directory on disk: held by one process at a time, with one small file that is replaced whole.
//! Knows what the file is for, and nothing of brokers.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fsync, openat, renameat};
use rustix::io::Errno;

use super::record::{RECORD_BYTES_MAX, Record};
use crate::fork::Descriptor;

const FILE: &CStr = c"state";
const NEW_FILE: &CStr = c"state.new";

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
        make(path)?;
        let fd = Descriptor::open(|| File::open(path).map(OwnedFd::from))?;
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
        let file = match openat(&self.fd, FILE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
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
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.fd, NEW_FILE, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(record.encode().as_bytes())?;
        file.sync_all()?;
        renameat(&self.fd, NEW_FILE, &self.fd, FILE)?;
        Ok(fsync(&self.fd)?)
    }
}

/// Makes a state directory, for its owner alone, unless there is one.
///
/// # Errors
/// If it cannot be made, or is no directory.
pub(super) fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(path)?.is_dir() => Ok(()),
        made => made,
    }
}
