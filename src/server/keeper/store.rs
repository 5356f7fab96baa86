//! What a place must do in which the record of a run and its tombstones are kept: a directory, or
//! etcd. Knows no place itself.

use std::io;
use std::os::fd::BorrowedFd;

use super::record::Record;
use crate::wire::message::ResumeId;

/// A place for the record of a run and for tombstones, which no other run writes to meanwhile.
pub(in crate::server) trait Store: Send {
    /// Replaces the record. After a crash at any moment either the old or the new record is found;
    /// once this has returned, the new one.
    ///
    /// # Errors
    /// If it cannot be written. Then it is not known which of the two records will be found.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// Adds tombstones of these sessions. Once this has returned, they are found after a crash.
    ///
    /// # Errors
    /// If they cannot be written. Then some of them may be found.
    fn add_tombstones(&mut self, sessions: &[ResumeId]) -> io::Result<()>;

    /// Removes all tombstones but those of these sessions, which are in the place already.
    ///
    /// # Errors
    /// If they cannot be removed. Then more may be found, never fewer.
    fn keep_tombstones(&mut self, sessions: &[ResumeId]) -> io::Result<()>;

    /// The descriptor by which this process has the place for itself, if another image of the
    /// process can go on with it.
    fn lock(&self) -> Option<BorrowedFd<'_>>;
}
