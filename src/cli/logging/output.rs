//! The standard error of the server's process, which belongs to the thread that writes the log. Everything else in
//! the process that writes there by itself, the Rust runtime before it aborts for one, must not hang either.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::isatty;

/// Where the log is written. One thread does so, and waits there for whoever reads.
pub(super) struct Output(OwnedFd);

impl Output {
    /// A descriptor of its own for what the standard error is now.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn take_stderr() -> io::Result<Self> {
        const LEAST: i32 = 3;
        let own = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), LEAST)?;
        keep_others_from_waiting(&own);
        Ok(Self(own))
    }

    /// Writes all of it, however long that takes.
    ///
    /// # Errors
    /// If that cannot be: the reader has gone, the disk is full.
    pub(super) fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.0, bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                // Another process that has the same pipe or terminal may have set it so.
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
        // Interrupted, it is asked again by those to whom it matters.
        poll(&mut fds, limit).is_ok_and(|ready| ready > 0)
    }
}

/// Replaces descriptor 2, for those who write there past the log, by one that never waits. Pipes and terminals can
/// be opened a second time for that; the flag alone would be that of every process that has them. A socket can not
/// be, and stays as it is; files never wait.
fn keep_others_from_waiting(stderr: &OwnedFd) {
    let is_pipe =
        rustix::fs::fstat(stderr).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if !is_pipe && !isatty(stderr) {
        return;
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Without /proc, or where it is somebody else's, it stays as it is, too.
    if let Ok(patient) = rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()) {
        let _ = rustix::stdio::dup2_stderr(patient);
    }
}
