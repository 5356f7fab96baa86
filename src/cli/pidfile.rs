//! The pidfile: it contains the process id, and the process holds a lock on it for its whole life,
//! so that no second one can start. The file is emptied and removed, so it must be the right one:
//! links are not followed, since another user may have put one into the directory.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

/// Opening never blocks, whatever kind of file there is.
const FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::CREATE)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A pidfile that is locked by this process. It is removed when this is dropped.
pub(super) struct Pidfile {
    file: File,
    path: PathBuf,
}

impl Pidfile {
    /// Opens and locks the pidfile, and writes the process id to it.
    ///
    /// # Errors
    /// If another process has locked it, or it cannot be written; the message names the file.
    pub(super) fn hold(path: &Path) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("pidfile {}: {error}", path.display()));
        Self::take(path).map_err(named)
    }

    /// The pidfile of an earlier image of this process, which has kept its descriptor, and with it
    /// the lock.
    pub(super) fn handed_over(descriptor: OwnedFd, path: &Path) -> Self {
        Self { file: File::from(descriptor), path: path.to_owned() }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn take(path: &Path) -> io::Result<Self> {
        loop {
            let mut file = open(path)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                let pid = io::read_to_string(&file).unwrap_or_default();
                let text = format!("another lockd runs, with process id {}", pid.trim());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            // Another process may have unlocked and removed it since it was opened here.
            if !is_at(&file, path) {
                continue;
            }
            // Only the process that has locked the file at the path may empty it.
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            return Ok(Self { file, path: path.to_owned() });
        }
    }
}

/// Opens the file, and creates it if it does not exist.
fn open(path: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = match rustix::fs::open(path, FLAGS, mode) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(io::Error::other("it is a symbolic link, which is not followed")),
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?;
    // A file that has been removed since it was opened has no link at all, and is accepted here.
    if !found.is_file() || found.nlink() > 1 {
        return Err(io::Error::other("it is not a regular file with a single name"));
    }
    Ok(file)
}

/// Whether `path` still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let inode =
        |metadata: io::Result<std::fs::Metadata>| metadata.map(|found| (found.dev(), found.ino())).ok();
    inode(file.metadata()) == inode(std::fs::symlink_metadata(path))
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Emptied first: without its former privileges this process may be unable to remove it.
        let _ = self.file.set_len(0);
        if is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
