//! The pidfile: it names the process, and its lock, held for the life of the process, keeps a second
//! one from starting. It is emptied and removed, so it must be the file that is meant: no link is followed, which
//! another user may have put into its directory.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

/// Nothing is waited for, whatever is there.
const FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::CREATE)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A pidfile that is held. Removed when dropped.
pub(super) struct Pidfile {
    file: File,
    path: PathBuf,
}

impl Pidfile {
    /// Takes the pidfile.
    ///
    /// # Errors
    /// If another process holds it, or it cannot be written; the message names the file.
    pub(super) fn hold(path: &Path) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("pidfile {}: {error}", path.display()));
        Self::take(path).map_err(named)
    }

    fn take(path: &Path) -> io::Result<Self> {
        loop {
            let mut file = open(path)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                let pid = io::read_to_string(&file).unwrap_or_default();
                let text = format!("another lockd runs, with process id {}", pid.trim());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            // The one who held it may have removed it since it was opened here.
            if !is_at(&file, path) {
                continue;
            }
            // Only now is it ours to empty.
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            return Ok(Self { file, path: path.to_owned() });
        }
    }
}

/// The file, which is made if it is not there.
fn open(path: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = match rustix::fs::open(path, FLAGS, mode) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(io::Error::other("it is a symbolic link, which is not followed")),
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?;
    // It may be gone again by now, and have no name at all.
    if !found.is_file() || found.nlink() > 1 {
        return Err(io::Error::other("it is no file of its own, which could be emptied"));
    }
    Ok(file)
}

/// Whether the file is still the one that stands at the path.
fn is_at(file: &File, path: &Path) -> bool {
    let inode =
        |metadata: io::Result<std::fs::Metadata>| metadata.map(|found| (found.dev(), found.ino())).ok();
    inode(file.metadata()) == inode(std::fs::symlink_metadata(path))
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Emptied first, since after giving up privileges it may not be ours to remove.
        let _ = self.file.set_len(0);
        if is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
