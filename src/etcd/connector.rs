//! Connections to one end point, for the HTTP client: TCP, and TLS if the address asks for it. Every
//! step ends at its deadline. Knows no HTTP and no etcd.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::addresses::{EndPointAddresses, in_words};
use super::url::EtcdEndPoint;
use crate::os::socket::{PollFd, PollFlags, Stream, wait_for};
use crate::os::tls::{ClientTls, TlsInput, TlsSession};

/// Makes the connections to one end point.
#[derive(Debug)]
pub(super) struct EtcdConnector {
    addresses: EndPointAddresses,
    host: String,
    tls: Option<ClientTls>,
}

/// Why there is no connection, or why TLS has ended it. Nothing is known of etcd then.
#[derive(Debug)]
pub(super) struct ConnectionFailed {
    pub(super) text: String,
    /// Whether the connection was still to be made, so that no request was sent on it.
    pub(super) is_unsent: bool,
    /// Whether the two sides disagree about TLS, which asking again does not change.
    pub(super) is_permanent: bool,
}

impl fmt::Display for ConnectionFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConnectionFailed {}

impl EtcdConnector {
    pub(super) fn new(end_point: &EtcdEndPoint, tls: Option<ClientTls>) -> Self {
        Self { addresses: EndPointAddresses::new(end_point), host: end_point.host.clone(), tls }
    }

    fn open(&self, deadline: Instant) -> Result<(Stream, Option<TlsSession>), ConnectionFailed> {
        let unreachable = |text| ConnectionFailed { text, is_unsent: true, is_permanent: false };
        let refused = |text| ConnectionFailed { text, is_unsent: true, is_permanent: true };
        let start = Instant::now();
        let in_words = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => {
                format!("not connected within {}", in_words(deadline.saturating_duration_since(start)))
            }
            _ => error.to_string(),
        };
        let addresses = self.addresses.resolve(deadline).map_err(unreachable)?;
        let tls = self.tls.as_ref().map(|tls| tls.session(&self.host)).transpose().map_err(refused)?;
        let stream = connect(&addresses, deadline).map_err(|error| unreachable(in_words(error)))?;
        let Some(mut tls) = tls else { return Ok((stream, None)) };
        match handshake(&stream, &mut tls, deadline) {
            Ok(()) => Ok((stream, Some(tls))),
            Err(error) if is_of_tls(&error) => Err(refused(error.to_string())),
            // That is how etcd without TLS answers.
            Err(error) if has_hung_up(&error) => Err(unreachable(
                "has closed the connection before TLS was agreed on (if it speaks no TLS there, write etcd:// instead \
                 of etcd+tls://)"
                    .to_owned(),
            )),
            Err(error) => Err(unreachable(in_words(error))),
        }
    }
}

impl Connector<()> for EtcdConnector {
    type Out = EtcdTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<EtcdTransport>, ureq::Error> {
        let (stream, tls) =
            self.open(deadline_of(details.timeout)).map_err(|failed| ureq::Error::Other(Box::new(failed)))?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(EtcdTransport { stream, tls, buffers, plain: Vec::new(), has_answered: false }))
    }
}

/// A connection to an end point.
pub(super) struct EtcdTransport {
    stream: Stream,
    tls: Option<TlsSession>,
    buffers: LazyBuffers,
    /// What TLS has decoded and the buffers had no room for.
    plain: Vec<u8>,
    /// Whether something came from the other side. The server refuses a client's certificate only
    /// when the handshake is done on the client's side.
    has_answered: bool,
}

impl fmt::Debug for EtcdTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTransport").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl EtcdTransport {
    /// Puts as much of what is decoded into the buffers as there is room for. False if there is
    /// nothing.
    fn pass_on(&mut self) -> bool {
        let room = self.buffers.input_append_buf();
        let count = room.len().min(self.plain.len());
        if let (Some(room), Some(plain)) = (room.get_mut(..count), self.plain.get(..count)) {
            room.copy_from_slice(plain);
        }
        self.plain.drain(..count);
        self.buffers.input_appended(count);
        count > 0
    }

    /// Reads what is there without waiting. `None` if there is nothing yet, `Some(false)` if there
    /// will be no more.
    fn read_now(&mut self) -> io::Result<Option<bool>> {
        let Some(tls) = &mut self.tls else {
            let Some(count) = self.stream.receive_now(self.buffers.input_append_buf())? else {
                return Ok(None);
            };
            if count == 0 && !self.has_answered {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.has_answered = true;
            self.buffers.input_appended(count);
            return Ok(Some(count > 0));
        };
        let mut wire = [0; 16 << 10];
        let Some(count) = self.stream.receive_now(&mut wire)? else { return Ok(None) };
        let input = tls.decode(wire.get(..count).unwrap_or_default(), &mut self.plain)?;
        self.has_answered |= !self.plain.is_empty();
        if self.pass_on() {
            return Ok(Some(true));
        }
        Ok(if count == 0 || input == TlsInput::End { Some(false) } else { None })
    }

    /// An error of this connection, as the HTTP client is to report it.
    fn error(&self, error: io::Error, timeout: NextTimeout) -> ureq::Error {
        match error.kind() {
            io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
            _ if is_of_tls(&error) => ureq::Error::Other(Box::new(ConnectionFailed {
                text: error.to_string(),
                is_unsent: false,
                is_permanent: !self.has_answered,
            })),
            // That is how etcd with TLS answers.
            _ if has_hung_up(&error) && self.tls.is_none() && !self.has_answered => {
                ureq::Error::Other(Box::new(ConnectionFailed {
                    text: "has closed the connection without an answer (if it speaks TLS there, write etcd+tls:// instead \
                           of etcd://)"
                        .to_owned(),
                    is_unsent: false,
                    is_permanent: false,
                }))
            }
            _ => ureq::Error::Io(error),
        }
    }
}

impl Transport for EtcdTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let deadline = deadline_of(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        let sent = match &mut self.tls {
            None => send(&self.stream, output, deadline),
            Some(tls) => {
                let mut wire = Vec::new();
                tls.encode(output, &mut wire);
                send(&self.stream, &wire, deadline)
            }
        };
        sent.map_err(|error| {
            // A server that refuses the client's certificate says so, and hangs up: while this side
            // sends already.
            let reason = if self.tls.is_some() { self.read_now().err() } else { None };
            self.error(reason.filter(is_of_tls).unwrap_or(error), timeout)
        })
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let deadline = deadline_of(timeout);
        if self.pass_on() {
            return Ok(true);
        }
        loop {
            let read = match self.read_now() {
                Ok(Some(has_more)) => return Ok(has_more),
                Ok(None) => wait_until(PollFd::new(&self.stream, PollFlags::IN), deadline),
                Err(error) => Err(error),
            };
            read.map_err(|error| self.error(error, timeout))?;
        }
    }

    /// Anything that comes between two requests is an end: of the connection, or of the agreement
    /// about whose turn it is.
    fn is_open(&mut self) -> bool {
        self.plain.is_empty() && matches!(self.read_now(), Ok(None))
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// Whether it is an error of TLS, and not of the connection under it.
fn is_of_tls(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && error.kind() == io::ErrorKind::Other
}

/// Whether the other side has ended the connection.
fn has_hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn deadline_of(timeout: NextTimeout) -> Instant {
    // An hour, should a call ever have no limit.
    let after = (*timeout.after).min(std::time::Duration::from_secs(3600));
    Instant::now() + after
}

/// Waits until the socket is ready, and fails at the deadline.
fn wait_until(socket: PollFd<'_>, deadline: Instant) -> io::Result<()> {
    let mut fds = [socket];
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match wait_for(&mut fds, Some(rest)) {
            Ok(()) if fds[0].revents().is_empty() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn send(stream: &Stream, mut unsent: &[u8], deadline: Instant) -> io::Result<()> {
    while !unsent.is_empty() {
        match stream.send_now(unsent)? {
            Some(sent) => unsent = unsent.get(sent..).unwrap_or_default(),
            None => wait_until(PollFd::new(stream, PollFlags::OUT), deadline)?,
        }
    }
    Ok(())
}

/// Tries every address, each for an equal share of the time left.
fn connect(addresses: &[SocketAddr], deadline: Instant) -> io::Result<Stream> {
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for (left, address) in (1..=addresses.len()).rev().zip(addresses) {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
        result = Stream::connect(Domain::for_address(*address), |socket| {
            connect_until(socket, &SockAddr::from(*address), now + share)
        });
        if result.is_ok() {
            break;
        }
    }
    let stream = result?;
    stream.set_nodelay()?;
    Ok(stream)
}

fn connect_until(socket: &Socket, address: &SockAddr, deadline: Instant) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
            wait_until(PollFd::new(socket, PollFlags::OUT), deadline)?;
            socket.take_error()?.map_or(Ok(()), Err)?;
        }
        done => done?,
    }
    // TCP can connect a socket to itself, if nothing listens on the port and the client's own port
    // happens to be the same one.
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(Errno::CONNREFUSED.into());
    }
    Ok(())
}

fn handshake(stream: &Stream, tls: &mut TlsSession, deadline: Instant) -> io::Result<()> {
    let mut taken = Ok(());
    loop {
        let mut wire = Vec::new();
        tls.encode(&[], &mut wire);
        let sent = send(stream, &wire, deadline);
        // First what is wrong with the other side's messages: it has been told, and may have hung
        // up since.
        taken?;
        sent?;
        if !tls.is_handshaking() {
            return Ok(());
        }
        wait_until(PollFd::new(stream, PollFlags::IN), deadline)?;
        let mut chunk = [0; 4096];
        taken = match stream.receive_now(&mut chunk)? {
            None => Ok(()),
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            // It answers nothing before it has got a request.
            Some(count) => tls.decode(chunk.get(..count).unwrap_or_default(), &mut Vec::new()).map(drop),
        };
    }
}
