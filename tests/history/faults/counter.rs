//! What the locks guard: a counter for each name, in a file. A client reads it and writes it back,
//! one higher, after a while. If two clients do that at the same time, one of the two increments is
//! lost, and the same value is written twice. Knows nothing of locks.
//!
//! A *fenced* counter refuses a client whose token is lower than one that was used before. It
//! represents any resource that checks tokens. Each access to it is atomic, by flock(2), which the
//! kernel releases when a process dies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::history::Name;

/// The counters of one name.
pub(crate) struct Counters {
    plain: File,
    fenced: File,
}

fn read(file: &File, at: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match file.read_exact_at(&mut bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        other => other.map(|()| u64::from_le_bytes(bytes)),
    }
}

fn write(file: &File, at: u64, value: u64) -> io::Result<()> {
    file.write_all_at(&value.to_le_bytes(), at)
}

impl Counters {
    pub(crate) fn open(directory: &Path, name: Name) -> io::Result<Self> {
        let open = |kind: &str| {
            let path = directory.join(format!("{kind}-{name}"));
            File::options().read(true).write(true).create(true).truncate(false).open(path)
        };
        Ok(Self { plain: open("plain")?, fenced: open("fenced")? })
    }

    pub(crate) fn read_plain(&self) -> io::Result<u64> {
        read(&self.plain, 0)
    }

    pub(crate) fn write_plain(&self, value: u64) -> io::Result<()> {
        write(&self.plain, 0, value)
    }

    /// The value, for the holder of this token, unless a higher token was used before.
    pub(crate) fn read_fenced(&self, token: u64) -> io::Result<Option<u64>> {
        self.access_fenced(token, |file| read(file, 8))
    }

    pub(crate) fn write_fenced(&self, token: u64, value: u64) -> io::Result<Option<()>> {
        self.access_fenced(token, |file| write(file, 8, value))
    }

    fn access_fenced<R>(
        &self,
        token: u64,
        access: impl FnOnce(&File) -> io::Result<R>,
    ) -> io::Result<Option<R>> {
        self.fenced.lock()?;
        let passes = read(&self.fenced, 0).and_then(|highest| {
            if token < highest {
                return Ok(None);
            }
            write(&self.fenced, 0, token)?;
            access(&self.fenced).map(Some)
        });
        self.fenced.unlock()?;
        passes
    }
}
