//! The pidfile: it names the process, and its lock, held for the life of the process, keeps a second
//! one from starting.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

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
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
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

/// Whether the file is still the one that stands at the path.
fn is_at(file: &File, path: &Path) -> bool {
    let inode =
        |metadata: io::Result<std::fs::Metadata>| metadata.map(|found| (found.dev(), found.ino())).ok();
    inode(file.metadata()) == inode(std::fs::metadata(path))
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
