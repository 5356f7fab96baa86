//! A Unix socket over which the administrator of a server gives it orders: for its owner alone, and
//! bound as the sockets of clients are. Knows no order.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::listener::unix_socket::{self, SocketFile};
use super::snapshot::types::SocketFileSnapshot;
use crate::os::fork::CloseOnForkFd;
use crate::os::socket::{PollFd, PollFlags, wait_for};
use crate::os::sync::Mutex;

/// The mode of the socket's file.
const MODE: u32 = 0o600;

/// A bound socket.
pub struct ControlSocket {
    socket: CloseOnForkFd,
    /// The file is removed when this is dropped.
    file: Mutex<Option<SocketFile>>,
}

impl ControlSocket {
    /// Binds a socket at `path`. A file that a killed server has left there is replaced.
    ///
    /// # Errors
    /// If another server listens there, if something else is there, or if the file cannot be made.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (socket, file) = unix_socket::bind(path, MODE)?;
        Ok(Self { socket, file: Mutex::new(Some(file)) })
    }

    /// The same socket in a new image of the process, which has kept these
    /// [descriptors](Self::descriptors), and takes them over.
    ///
    /// # Errors
    /// If they are not those of a socket, of its file and of its lock file.
    pub fn go_on(path: &Path, [socket, fd, lock_fd]: [RawFd; 3]) -> io::Result<Self> {
        let socket = CloseOnForkFd::take_over(socket)?;
        let file = SocketFile::restore(&std::path::absolute(path)?, SocketFileSnapshot { fd, lock_fd })?;
        Ok(Self { socket, file: Mutex::new(Some(file)) })
    }

    /// The numbers of its descriptors, which stay open until it is [removed](Self::remove).
    #[must_use]
    pub fn descriptors(&self) -> Option<[RawFd; 3]> {
        let SocketFileSnapshot { fd, lock_fd } = self.file.lock().as_ref()?.snapshot();
        Some([self.socket.as_fd().as_raw_fd(), fd, lock_fd])
    }

    /// Makes this user and group the owners of the socket's file. To be called before this process
    /// becomes that user.
    ///
    /// # Errors
    /// If this process may not do that.
    pub fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.file.lock().as_ref().map_or(Ok(()), |file| file.give_to(uid, gid))
    }

    /// Removes the socket's file, so that nobody can connect any more.
    pub fn remove(&self) {
        *self.file.lock() = None;
    }

    /// Waits for the next connection, and accepts it. Only processes of root and of the user of
    /// this process may connect: the connection of any other one is closed.
    ///
    /// # Errors
    /// If nothing can be accepted, for example for lack of descriptors.
    pub fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let _ = wait_for(&mut [PollFd::new(&self.socket, PollFlags::IN)], None);
            match accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(stream) if is_trusted(&stream) => return Ok(UnixStream::from(stream)),
                // Its client has gone again, or a signal came.
                Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_trusted(stream: &OwnedFd) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    peer.is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}
