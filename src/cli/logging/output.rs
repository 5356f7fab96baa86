//! The standard error of the server's process, to which the log's thread alone writes. Other code
//! that writes there, for example the Rust runtime before it aborts, must not hang either.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::isatty;

/// Where the log is written, by one thread, which may wait for the reader.
pub(super) struct LogOutput(OwnedFd);

impl LogOutput {
    /// Duplicates standard error, and makes descriptor 2 non-blocking where that is possible.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(super) fn take_stderr() -> io::Result<Self> {
        const LEAST: i32 = 3;
        let own = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), LEAST)?;
        make_stderr_nonblocking(&own);
        Ok(Self(own))
    }

    /// Writes all of `bytes`, however long that takes.
    ///
    /// # Errors
    /// If they cannot be written, for example because the reader has gone or the disk is full.
    pub(super) fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.0, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                // Another process with the same pipe or terminal may have made it non-blocking.
                Err(Errno::AGAIN) => {
                    self.can_take(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether something can be written now without waiting.
    pub(super) fn takes_more(&self) -> bool {
        self.can_take(Some(&Timespec::default()))
    }

    fn can_take(&self, limit: Option<&Timespec>) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
        // After an interruption this is false; callers to whom that matters call again.
        poll(&mut fds, limit).is_ok_and(|ready| ready > 0)
    }
}

/// Replaces descriptor 2 by a non-blocking one, for code that writes there without using the log.
/// Pipes and terminals are opened a second time for that: the flag belongs to the open file, which
/// other processes share. A socket cannot be opened again and stays as it is. Files never block.
fn make_stderr_nonblocking(stderr: &OwnedFd) {
    let is_pipe =
        rustix::fs::fstat(stderr).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if !is_pipe && !isatty(stderr) {
        return;
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // If /proc is missing, or does not let this user open it, it also stays as it is.
    if let Ok(nonblocking) = rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()) {
        let _ = rustix::stdio::dup2_stderr(nonblocking);
    }
}
