//! Sockets for server and client: one type for TCP and Unix streams, with the options and calls
//! that both need, polling, and a waker. Knows no protocol and no broker.
//!
//! Everything is sent with `send(MSG_NOSIGNAL)`: a peer that is gone must be an error here, never a
//! signal in the program that embeds this library.

mod kernel;
mod readiness;

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, eventfd, poll};
pub(crate) use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, connect_unspec, recv, send};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

pub(crate) use readiness::Readiness;

use crate::os::Keepalive;
use crate::os::fork::CloseOnForkFd;

/// The most bytes that one `send` passes to the kernel. Over TCP each such piece is marked as the
/// end of a record, so that the kernel does not join it with the next.
///
/// While a peer's buffer is full, the user timeout of Linux runs until there is room for the whole
/// first piece that waits. So pieces must be small. By itself the kernel makes pieces of
/// up to 64 KiB. A peer that reads steadily, but little at a time, would then count as dead in the
/// middle of a long reply.
const PIECE_BYTES_MAX: usize = 4096;

/// A connected stream socket. Several threads may use it at once.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: CloseOnForkFd,
    is_tcp: bool,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket of this kind, not connected to anything.
pub(crate) fn new_socket(domain: Domain) -> io::Result<CloseOnForkFd> {
    CloseOnForkFd::open(|| Socket::new(domain, Type::STREAM, None).map(OwnedFd::from))
}

impl Stream {
    /// Makes a new socket and connects it with `connect`.
    pub(crate) fn connect(
        domain: Domain,
        connect: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let fd = new_socket(domain)?;
        connect(&SockRef::from(&fd))?;
        Ok(Self { fd, is_tcp: domain != Domain::UNIX })
    }

    /// Accepts the next connection of a non-blocking listening socket; also returns the peer's
    /// address.
    pub(crate) fn accept(listener: &CloseOnForkFd) -> io::Result<(Self, SockAddr)> {
        let mut peer = None;
        let fd = CloseOnForkFd::open(|| {
            let (socket, address) = SockRef::from(listener).accept()?;
            peer = Some(address);
            Ok(socket.into())
        })?;
        let peer = peer.ok_or(io::ErrorKind::NotConnected)?;
        Ok((Self { fd, is_tcp: !peer.is_unix() }, peer))
    }

    /// Takes over the connection with this descriptor, which was handed over through execve(2).
    /// [`receive`](Self::receive) has no limit then.
    ///
    /// # Errors
    /// If it was not handed over, or is no stream socket of this kind.
    pub(crate) fn take_over(number: RawFd, is_tcp: bool) -> io::Result<Self> {
        let fd = CloseOnForkFd::take_over(number)?;
        let socket = SockRef::from(&fd);
        let is_stream = socket.r#type()? == Type::STREAM && !socket.is_listener()?;
        let is_unix = socket.domain()? == Domain::UNIX;
        if !is_stream || is_unix == is_tcp {
            return Err(io::Error::other("the descriptor is of another kind of socket"));
        }
        let stream = Self { fd, is_tcp };
        stream.set_receive_limit(None)?;
        Ok(stream)
    }

    /// The number of its descriptor.
    pub(crate) fn number(&self) -> RawFd {
        self.fd.as_fd().as_raw_fd()
    }

    /// Whether its descriptor still stands for this connection. False once another part of the
    /// program has closed it. Then it must not be used, since its number may stand for another file
    /// by now.
    pub(crate) fn is_intact(&self) -> bool {
        self.fd.is_intact()
    }

    /// Whether the peer has received everything that was sent, and the end of the stream after a
    /// [shutdown](Self::shutdown). For TCP this means that the peer's kernel has acknowledged it.
    /// Has no meaning once the kernel has given the peer up.
    pub(crate) fn is_delivered(&self) -> bool {
        !self.is_tcp || kernel::unacknowledged(self.fd.as_fd()) == Some(0)
    }

    /// Ends the connection with a reset. Unlike the end of the stream, it also reaches a peer whose
    /// buffer is full. If the reset is lost, the next packet from the peer is answered with another
    /// one.
    pub(crate) fn abort(&self) {
        // It fails only if there is no connection.
        let _ = connect_unspec(&self.fd);
    }

    /// Takes the pending error of the socket, with which the next call would have failed.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        SockRef::from(&self.fd).take_error().ok().flatten()
    }

    /// Sets how the kernel detects a dead peer. Does nothing for a Unix socket: the kernel knows
    /// when its peer is gone.
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
        // While data is unacknowledged the kernel sends no keepalive probes; this timeout covers
        // that case.
        socket.set_tcp_user_timeout(Some(keepalive.user_timeout))?;
        // The user timeout counts from the first retransmission, which can come late after an
        // earlier outage.
        kernel::limit_retransmission_timeout(self.fd.as_fd());
        Ok(())
    }

    /// Whether it is a TCP socket, and not a Unix socket.
    pub(crate) fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    /// The time since the peer was last heard of, as this machine's kernel counts. `None` for a
    /// Unix socket, or if the kernel does not tell.
    pub(crate) fn silence(&self) -> Option<Duration> {
        if self.is_tcp { kernel::silence(self.fd.as_fd()) } else { None }
    }

    /// Whether the socket is still connected, as far as this side knows. False for a TCP connection
    /// that was reset or given up.
    pub(crate) fn has_peer(&self) -> bool {
        !self.is_tcp || SockRef::from(&self.fd).peer_addr().is_ok()
    }

    /// Sends small messages at once, without waiting for more data.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        if self.is_tcp { SockRef::from(&self.fd).set_tcp_nodelay(true) } else { Ok(()) }
    }

    /// Waits for bytes and appends them to `into`, as many as its spare capacity allows. 0 means
    /// that the peer will send no more. If a signal handler runs meanwhile, it fails with
    /// [`io::ErrorKind::Interrupted`] and has read nothing.
    pub(crate) fn receive(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(recv(&self.fd, spare_capacity(into), RecvFlags::empty()).map(|(read, _)| read)?)
    }

    /// Limits the time that [`receive`](Self::receive) waits. At the limit it fails with
    /// [`io::ErrorKind::WouldBlock`].
    pub(crate) fn set_receive_limit(&self, limit: Option<Duration>) -> io::Result<()> {
        SockRef::from(&self.fd).set_read_timeout(limit)
    }

    /// Reads some bytes without waiting. `None` if there are none yet.
    pub(crate) fn receive_now(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        none_if_blocking(retry(|| recv(&self.fd, &mut *into, RecvFlags::DONTWAIT).map(|(read, _)| read)))
    }

    /// Sends some of the bytes without waiting, [`PIECE_BYTES_MAX`] of them at most; `None` if the
    /// socket accepts none now.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
        let end_of_piece = if self.is_tcp { SendFlags::EOR } else { SendFlags::empty() };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | end_of_piece;
        none_if_blocking(retry(|| send(&self.fd, piece, flags)))
    }

    /// Ends this side's output after everything that was sent. False if the connection is gone
    /// already.
    pub(crate) fn end_output(&self) -> bool {
        SockRef::from(&self.fd).shutdown(Shutdown::Write).is_ok()
    }

    /// Ends this side's input after everything that has been received. The kernel still accepts
    /// what the peer sends.
    pub(crate) fn end_input(&self) {
        // It fails only if the connection is gone already.
        let _ = SockRef::from(&self.fd).shutdown(Shutdown::Read);
    }

    /// Ends both directions. A thread that waits in [`receive`](Self::receive) returns with 0.
    pub(crate) fn shutdown(&self) {
        // It fails only if the connection is gone already.
        let _ = SockRef::from(&self.fd).shutdown(Shutdown::Both);
    }
}

/// Repeats a call that a signal handler has interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

fn none_if_blocking(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

/// Waits until one of the descriptors is ready or `limit` has passed, and notes in each what it is
/// ready for. If a signal handler runs meanwhile, it fails with [`io::ErrorKind::Interrupted`].
pub(crate) fn wait_for(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    poll(fds, limit.as_ref()).map(|_| ()).map_err(io::Error::from)
}

/// Wakes one thread out of [`wait_for`].
#[derive(Debug)]
pub(crate) struct Waker(CloseOnForkFd);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(CloseOnForkFd::open_anonymous(|| Ok(eventfd(0, flags)?))?))
    }

    /// Makes [`poll_fd`](Self::poll_fd) readable until it is [reset](Self::reset). Does nothing
    /// once another part of the program has closed its descriptor.
    pub(crate) fn wake(&self) {
        if self.0.is_intact() {
            // It fails only if the counter is full. Then the descriptor is readable, as it should
            // be.
            let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
        }
    }

    pub(crate) fn reset(&self) {
        if self.0.is_intact() {
            // It fails only if there is nothing to read. Then it is reset already.
            let _ = rustix::io::read(&self.0, &mut [0; 8]);
        }
    }

    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.0, PollFlags::IN)
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = SockAddr::from(listener.local_addr().unwrap());
        let ours = Stream::connect(Domain::IPV4, |socket| socket.connect(&address)).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn is_soon_delivered(stream: &Stream) -> bool {
        (0..10_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            stream.is_delivered()
        })
    }

    #[test]
    fn the_end_of_a_connection_counts_as_delivered_once_it_is_acknowledged() {
        let (ours, _theirs) = pair();
        assert!(ours.is_delivered());
        ours.shutdown();
        assert!(is_soon_delivered(&ours));
    }

    #[test]
    fn the_end_is_not_delivered_while_the_peer_has_no_room_for_the_data_before_it() {
        let (ours, mut theirs) = pair();
        while ours.send_now(&[0; 65_536]).unwrap().is_some() {}
        ours.shutdown();
        assert!(!ours.is_delivered());
        theirs.read_to_end(&mut Vec::new()).unwrap();
        assert!(is_soon_delivered(&ours));
    }
}
