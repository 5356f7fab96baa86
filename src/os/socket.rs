//! What server and client share of sockets: one type for TCP and Unix streams, with the options and the
//! calls both sides need. Knows no protocol and no broker.
//!
//! Everything is sent with `send(MSG_NOSIGNAL)`: a peer that is gone must be an error here, never a
//! signal in the program that embeds this library.

mod kernel;

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, eventfd, poll};
pub(crate) use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, connect_unspec, recv, send};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::os::Keepalive;
use crate::os::fork::Descriptor;

/// The most bytes that the kernel keeps as one piece of what is to be sent; over TCP, each piece is marked as the end of
/// a record, so that none grows with what is sent behind it.
///
/// A Linux kernel counts the user timeout of a peer with a full buffer from when that filled, until there is room for
/// the whole first piece that waits. With the pieces of up to 64 KiB that it makes by itself, a peer that reads
/// steadily, but little at a time, would be given up in the middle of a long reply.
const PIECE: usize = 4096;

/// A connected stream socket. All its calls may be made from several threads at once.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: Descriptor,
    is_tcp: bool,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket of this kind, not connected to anything.
pub(crate) fn new_socket(domain: Domain) -> io::Result<Descriptor> {
    Descriptor::open(|| Socket::new(domain, Type::STREAM, None).map(OwnedFd::from))
}

impl Stream {
    /// A new socket that `connect` has connected.
    pub(crate) fn connect(
        domain: Domain,
        connect: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let fd = new_socket(domain)?;
        connect(&SockRef::from(&fd))?;
        Ok(Self { fd, is_tcp: domain != Domain::UNIX })
    }

    /// The next connection of a listening socket that does not block, and its peer.
    pub(crate) fn accept(listener: &Descriptor) -> io::Result<(Self, SockAddr)> {
        let mut peer = None;
        let fd = Descriptor::open(|| {
            let (socket, address) = SockRef::from(listener).accept()?;
            peer = Some(address);
            Ok(socket.into())
        })?;
        let peer = peer.ok_or(io::ErrorKind::NotConnected)?;
        Ok((Self { fd, is_tcp: !peer.is_unix() }, peer))
    }

    /// Whether its descriptor still stands for this connection: not so once another part of the program has
    /// closed it. Then nothing may be done with it, as it may stand for something else by now.
    pub(crate) fn is_intact(&self) -> bool {
        self.fd.is_intact()
    }

    /// Whether everything sent, and the end of it after a [shutdown](Self::shutdown), is with the peer, which
    /// for TCP means acknowledged by its kernel. False also if it never will be; means nothing if the kernel
    /// has given the peer up.
    pub(crate) fn is_delivered(&self) -> bool {
        !self.is_tcp || kernel::unacknowledged(self.fd.as_fd()) == Some(0)
    }

    /// Ends the connection by a reset, which also reaches a peer that has no room for what stands before the
    /// end; and if it is lost, whatever the peer sends is answered by another one.
    pub(crate) fn abort(&self) {
        // It fails only if there is no connection.
        let _ = connect_unspec(&self.fd);
    }

    /// The error that the next call would fail with, which then does not.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        SockRef::from(&self.fd).take_error().ok().flatten()
    }

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
        socket.set_tcp_user_timeout(Some(keepalive.user_timeout))?;
        // The user timeout counts from the first retransmission, which an outage in the past can put off.
        kernel::limit_retransmission_timeout(self.fd.as_fd());
        Ok(())
    }

    /// Whether it goes over TCP, not a Unix socket.
    pub(crate) fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    /// How long nothing was heard of the peer, as its kernel counts; `None` if it cannot be known, or need
    /// not be.
    pub(crate) fn silence(&self) -> Option<Duration> {
        if self.is_tcp { kernel::silence(self.fd.as_fd()) } else { None }
    }

    /// Whether there is somebody at the other end, as far as this end knows; not so for a TCP connection
    /// that was reset or given up.
    pub(crate) fn has_peer(&self) -> bool {
        !self.is_tcp || SockRef::from(&self.fd).peer_addr().is_ok()
    }

    /// Sends small messages at once rather than waiting for more to go with them.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        if self.is_tcp { SockRef::from(&self.fd).set_tcp_nodelay(true) } else { Ok(()) }
    }

    /// Waits for bytes and appends some of them, as many as there is capacity for; 0 means that the peer
    /// will send no more.
    pub(crate) fn receive(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        retry(|| recv(&self.fd, spare_capacity(into), RecvFlags::empty()).map(|(read, _)| read))
    }

    /// How long [`receive`](Self::receive) waits before it fails with [`io::ErrorKind::WouldBlock`].
    pub(crate) fn set_receive_limit(&self, limit: Option<Duration>) -> io::Result<()> {
        SockRef::from(&self.fd).set_read_timeout(limit)
    }

    /// Reads some bytes without waiting; `None` if there are none yet.
    pub(crate) fn receive_now(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        now(retry(|| recv(&self.fd, &mut *into, RecvFlags::DONTWAIT).map(|(read, _)| read)))
    }

    /// Sends some of the bytes without waiting, [`PIECE`] of them at most; `None` if the socket takes none now.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let end_of_piece = if self.is_tcp { SendFlags::EOR } else { SendFlags::empty() };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | end_of_piece;
        now(retry(|| send(&self.fd, piece, flags)))
    }

    /// Ends what is sent, behind all that has been sent. False if the connection is gone already, and nothing was
    /// sent.
    pub(crate) fn end_output(&self) -> bool {
        SockRef::from(&self.fd).shutdown(Shutdown::Write).is_ok()
    }

    /// Ends what is received, behind all that has come; what the peer sends is taken all the same.
    pub(crate) fn end_input(&self) {
        // It fails only if the connection is gone already.
        let _ = SockRef::from(&self.fd).shutdown(Shutdown::Read);
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
pub(crate) struct Waker(Descriptor);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Descriptor::open_anonymous(|| Ok(eventfd(0, flags)?))?))
    }

    /// Makes [`poll_fd`](Self::poll_fd) readable until it is [reset](Self::reset). If another part of the
    /// program has closed its descriptor, nobody can be woken any more.
    pub(crate) fn wake(&self) {
        if self.0.is_intact() {
            // The only way to fail is a counter that is full: then it is readable as it should be.
            let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
        }
    }

    pub(crate) fn reset(&self) {
        if self.0.is_intact() {
            // Nothing to read means that it is reset already.
            let _ = rustix::io::read(&self.0, &mut [0; 8]);
        }
    }

    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.0, PollFlags::IN)
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
    fn the_end_of_a_connection_is_delivered_once_it_is_acknowledged() {
        let (ours, _theirs) = pair();
        assert!(ours.is_delivered());
        ours.shutdown();
        assert!(is_soon_delivered(&ours));
    }

    #[test]
    fn nothing_is_delivered_that_stands_behind_what_the_peer_has_no_room_for() {
        let (ours, mut theirs) = pair();
        while ours.send_now(&[0; 65_536]).unwrap().is_some() {}
        ours.shutdown();
        assert!(!ours.is_delivered());
        theirs.read_to_end(&mut Vec::new()).unwrap();
        assert!(is_soon_delivered(&ours));
    }
}
