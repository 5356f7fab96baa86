//! What server and client share of sockets: one type for TCP and Unix streams, with the options and the
//! calls both sides need. Knows no protocol and no broker.
//!
//! Everything is sent with `send(MSG_NOSIGNAL)`: a peer that is gone must be an error here, never a
//! signal in the program that embeds this library.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{SockRef, TcpKeepalive};

use crate::protocol::message::Keepalive;

/// A connected stream socket. All its calls may be made from several threads at once.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    is_tcp: bool,
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self { fd: stream.into(), is_tcp: true }
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self { fd: stream.into(), is_tcp: false }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Stream {
    /// Sets what makes a dead peer be noticed. For a Unix socket there is nothing to set: the kernel
    /// knows when its peer is gone.
    pub(crate) fn set_keepalive(&self, keepalive: &Keepalive) -> io::Result<()> {
        if !self.is_tcp {
            return Ok(());
        }
        let socket = SockRef::from(&self.fd);
        let probes = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes);
        socket.set_tcp_keepalive(&probes)?;
        // Keepalive alone does not see a peer that is gone while data is on its way to it.
        socket.set_tcp_user_timeout(Some(keepalive.user_timeout))
    }

    /// Sends small messages at once rather than waiting for more to go with them.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        if self.is_tcp { SockRef::from(&self.fd).set_tcp_nodelay(true) } else { Ok(()) }
    }

    /// Waits for bytes and reads some of them; 0 means that the peer will send no more.
    pub(crate) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        retry(|| recv(&self.fd, &mut *into, RecvFlags::empty()).map(|(read, _)| read))
    }

    /// The same without waiting; `None` if there is nothing yet.
    pub(crate) fn receive_now(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        now(retry(|| recv(&self.fd, &mut *into, RecvFlags::DONTWAIT).map(|(read, _)| read)))
    }

    /// Sends some of the bytes without waiting; `None` if the socket takes none now.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        now(retry(|| send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)))
    }

    /// Ends both directions: whoever reads from the socket, in any thread, is told that it is at its end.
    pub(crate) fn shutdown(&self) {
        // It fails only if the connection is gone already, which is what is wanted.
        let _ = SockRef::from(&self.fd).shutdown(Shutdown::Both);
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

fn now(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

/// Waits until one of these is ready or the time is over, and says in each what it is ready for. A
/// signal handler that ran meanwhile ends the wait with [`io::ErrorKind::Interrupted`].
pub(crate) fn wait_for(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    poll(fds, limit.as_ref()).map(|_| ()).map_err(io::Error::from)
}

/// Wakes one thread out of [`wait_for`].
#[derive(Debug)]
pub(crate) struct Waker(OwnedFd);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes [`poll_fd`](Self::poll_fd) readable until it is [reset](Self::reset).
    pub(crate) fn wake(&self) {
        // The only way to fail is a counter that is full: then it is readable as it should be.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn reset(&self) {
        // Nothing to read means that it is reset already.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.0, PollFlags::IN)
    }
}
