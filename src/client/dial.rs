//! Reaching a server: resolving its address, connecting within a time, setting what makes a server that is
//! gone be noticed, and agreeing on TLS where that is wanted. Sends no message.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket};

use super::connect_error::{ConnectError, ConnectErrorKind, Refusal};
use super::connection::Connection;
use super::input::what_is_spoken;
use super::url::{Endpoint, ServerUrl};
use crate::os::Keepalive;
use crate::os::socket::{PollFd, PollFlags, Stream, wait_for};
use crate::os::tls::{TlsSession, client_session};
use crate::wire::first_bytes::{DetectedProtocol, detect_protocol};

/// How a session on a server is to be opened.
///
/// ```no_run
/// use lockd::{Session, client::ConnectOptions};
/// use std::time::Duration;
///
/// let timeout = Duration::from_secs(10);
/// let options = ConnectOptions { owner: Some("nightly"), timeout, ..ConnectOptions::default() };
/// let session = Session::connect_with("tcp://127.0.0.1:20934", &options)?;
/// # Ok::<(), lockd::client::ConnectError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions<'a> {
    /// What the session is called in listings and deadlock reports. By default it has no name.
    pub owner: Option<&'a str>,
    /// How long connecting may take in all; only resolving names may take longer. By default there is no
    /// limit.
    pub timeout: Duration,
    /// How long the program may need to end its work once the session is lost: an hour at most, and more
    /// counts as an hour. When the *server* ends the session (a kick, for instance), it keeps the locks for
    /// that long, or until this end closes the connection, which says that the work has ended. So the
    /// connection of a lost session stays open until the session is closed or dropped. Zero, the default:
    /// the server may give the locks away as soon as this end knows that they are lost.
    pub wind_down: Duration,
    /// Whether a signal handler that runs in a thread that waits for a lock ends its wait with
    /// [`AcquireError::Interrupted`](crate::broker::AcquireError::Interrupted). The place in the queue is
    /// kept, and whatever time limit the call had goes on: the same call again goes on waiting there, and so
    /// does `wait`; `release` gives it up. Without this, the default, signal handlers change nothing.
    pub interruptible: bool,
}

impl Default for ConnectOptions<'_> {
    fn default() -> Self {
        Self { owner: None, timeout: Duration::MAX, wind_down: Duration::ZERO, interruptible: false }
    }
}

/// The moment `limit` from now; `None` for no limit, or one beyond what the clock can count.
pub(super) fn deadline(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?)
}

/// Connects within `timeout`, not counting the resolver's time, which nothing limits.
pub(super) fn dial(url: &ServerUrl, timeout: Duration) -> Result<Connection, ConnectError> {
    let unreachable = |error| ConnectError::Unreachable { server: url.to_string(), error };
    let refused = |kind, reason| Refusal::new(kind, reason).of(url);
    let deadline = deadline(Some(timeout));
    let (Some(files), Endpoint::Tcp { host, .. }) = (url.tls(), url.endpoint()) else {
        let stream = connect(url, timeout)?;
        return Connection::new(stream, None).map_err(unreachable);
    };
    // First of all: what is wrong here is no matter of the server's.
    let mut tls = client_session(files, host).map_err(|reason| refused(ConnectErrorKind::Local, reason))?;
    let stream = connect(url, timeout)?;
    match shake_hands(&stream, &mut tls, deadline) {
        Ok(()) => Connection::new(stream, Some(tls)).map_err(unreachable),
        Err(error) if error.raw_os_error().is_some() || error.kind() != io::ErrorKind::Other => {
            Err(unreachable(error))
        }
        Err(error) => Err(refused(ConnectErrorKind::Tls, error.to_string())),
    }
}

/// Agrees with the server on TLS.
fn shake_hands(stream: &Stream, tls: &mut TlsSession, deadline: Option<Instant>) -> io::Result<()> {
    let mut early = Vec::new();
    let mut taken = Ok(());
    let mut is_first = true;
    loop {
        let mut wire = Vec::new();
        tls.encode(&[], &mut wire);
        let mut unsent = wire.as_slice();
        while !unsent.is_empty() {
            match stream.send_now(unsent)? {
                Some(sent) => unsent = unsent.get(sent..).unwrap_or_default(),
                None => wait_until(stream, PollFlags::OUT, deadline)?,
            }
        }
        // Not before the server has been told what is wrong with it.
        taken?;
        if !tls.is_handshaking() {
            // A server of this protocol does not speak first, but for a complaint, and then it hangs up.
            let complains = || what_is_spoken(&early).unwrap_or_else(|| "the server complains".to_owned());
            return if early.is_empty() { Ok(()) } else { Err(io::Error::other(complains())) };
        }
        wait_until(stream, PollFlags::IN, deadline)?;
        let mut chunk = [0; 4096];
        taken = match stream.receive_now(&mut chunk)? {
            None => Ok(()),
            Some(0) => {
                let text = "the server closed the connection before TLS was agreed on: it is stopping, or does \
                            not speak TLS there (without TLS: tcp:// instead of tls://)";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
            }
            Some(read) => {
                let bytes = chunk.get(..read).unwrap_or_default();
                let taken = tls.decode(bytes, &mut early).map(|_| ());
                let answers_tls = !std::mem::take(&mut is_first);
                taken.map_err(|error| if answers_tls { error } else { without_tls(bytes).unwrap_or(error) })
            }
        };
    }
}

/// What is wrong with a server that answers a client of TLS in something else.
fn without_tls(first: &[u8]) -> Option<io::Error> {
    let speaks = match detect_protocol(first)? {
        DetectedProtocol::Tls => return None,
        DetectedProtocol::Message => "it does not speak TLS there: write tcp:// instead of tls://".to_owned(),
        DetectedProtocol::Http | DetectedProtocol::Text => {
            format!("it does not speak TLS there; {}", what_is_spoken(first).unwrap_or_default())
        }
    };
    Some(io::Error::other(speaks))
}

fn wait_until(stream: &Stream, ready_for: PollFlags, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if rest == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the TLS handshake in time"));
        }
        let mut fds = [PollFd::new(stream, ready_for)];
        match wait_for(&mut fds, rest) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ if !fds[0].revents().is_empty() => return Ok(()),
            _ => {}
        }
    }
}

fn connect(url: &ServerUrl, timeout: Duration) -> Result<Stream, ConnectError> {
    let unreachable = |error| ConnectError::Unreachable { server: url.to_string(), error };
    let stream = match url.endpoint() {
        Endpoint::Tcp { host, port } => {
            let addresses = (host.as_str(), *port).to_socket_addrs();
            let unresolved = |error| ConnectError::Unresolved { server: url.to_string(), error };
            connect_tcp(&addresses.map_err(unresolved)?.collect::<Vec<_>>(), timeout)
        }
        Endpoint::Unix(path) => connect_unix(path, timeout),
    };
    // Until the server has said otherwise.
    let keepalive = Keepalive::client(Keepalive::DEAD_PEER_TIMEOUT);
    let set = |stream: Stream| {
        stream.set_nodelay()?;
        stream.set_keepalive(&keepalive)?;
        Ok(stream)
    };
    stream.and_then(set).map_err(unreachable)
}

/// Tries every address of the host, each for its share of the time that is left.
fn connect_tcp(addresses: &[SocketAddr], timeout: Duration) -> io::Result<Stream> {
    let deadline = deadline(Some(timeout));
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for (left, address) in (1..=addresses.len()).rev().zip(addresses) {
        let rest = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
        let share = rest / u32::try_from(left).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        result = Stream::connect(Domain::for_address(*address), |socket| {
            socket.connect_timeout(&(*address).into(), share)?;
            refuse_oneself(socket)
        });
        if result.is_ok() {
            break;
        }
    }
    result
}

/// A port of the kind that clients are given, with nobody listening: TCP can connect it to itself.
fn refuse_oneself(socket: &Socket) -> io::Result<()> {
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}

fn connect_unix(path: &Path, timeout: Duration) -> io::Result<Stream> {
    let (address, deadline) = (SockAddr::unix(path)?, deadline(Some(timeout)));
    Stream::connect(Domain::UNIX, |socket| {
        loop {
            let rest =
                deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            // What limits connecting, too, where a Unix socket is concerned. Zero would be no limit.
            socket.set_write_timeout(Some(rest.max(Duration::from_millis(1))))?;
            match socket.connect(&address) {
                Ok(()) => return socket.set_write_timeout(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted && !rest.is_zero() => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
    })
}
