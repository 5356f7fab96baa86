//! Reaching a server: resolving its address, connecting within a time, setting what makes a server that is
//! gone be noticed, and agreeing on TLS where that is wanted. Sends no message.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket};

use super::connection::Connection;
use super::url::{BadUrl, Endpoint, ServerUrl};
use crate::protocol::message::Keepalive;
use crate::socket::{PollFd, PollFlags, Stream, wait_for};
use crate::tls::{TlsSession, client_session};

/// Why there is no session, or no client.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is none.
    Url(BadUrl),
    /// The server cannot be reached.
    Unreachable {
        /// Its address.
        server: String,
        /// What the last attempt failed with.
        error: io::Error,
    },
    /// It was reached, but is no lock server, or refuses.
    Refused {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
    },
    /// It was reached, and does not serve this client now: it hangs, hangs up, is full, or is stopping.
    Unavailable {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
    },
    /// Several servers were tried, and there is a session on none: why, for each, in the order of their
    /// addresses.
    NoneOfSeveral(Vec<ConnectError>),
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Unreachable { server, error } => write!(f, "{server} cannot be reached: {error}"),
            Self::Refused { server, reason } | Self::Unavailable { server, reason } => {
                write!(f, "no session on {server}: {reason}")
            }
            Self::NoneOfSeveral(errors) => {
                let reasons: Vec<String> = errors.iter().map(Self::to_string).collect();
                f.write_str(&reasons.join("; "))
            }
        }
    }
}

impl std::error::Error for ConnectError {}

impl ConnectError {
    /// Whether trying again cannot help, since what is wrong is the address, the protocol, the certificate or the
    /// secret. False where the server is not there, hangs, or turns clients away; of several servers, if that is so
    /// of all.
    #[must_use]
    pub fn is_mistake(&self) -> bool {
        match self {
            Self::Url(_) | Self::Refused { .. } => true,
            // The system's own `NotFound`, with a number, is a socket file that is not there yet.
            Self::Unreachable { error, .. } => {
                error.kind() == io::ErrorKind::NotFound && error.raw_os_error().is_none()
            }
            Self::Unavailable { .. } => false,
            Self::NoneOfSeveral(errors) => errors.iter().any(Self::is_mistake),
        }
    }

    /// The one error that tells of all of these, one for each server that was tried.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::NoneOfSeveral(errors) }
    }
}

impl From<BadUrl> for ConnectError {
    fn from(error: BadUrl) -> Self {
        Self::Url(error)
    }
}

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
    let refused = |reason| ConnectError::Refused { server: url.to_string(), reason };
    let deadline = deadline(Some(timeout));
    let (Some(files), Endpoint::Tcp { host, .. }) = (url.tls(), url.endpoint()) else {
        let stream = connect(url.endpoint(), timeout).map_err(unreachable)?;
        return Connection::new(stream, None).map_err(unreachable);
    };
    // First of all: what is wrong here is no matter of the server's.
    let mut tls = client_session(files, host).map_err(refused)?;
    let stream = connect(url.endpoint(), timeout).map_err(unreachable)?;
    match shake_hands(&stream, &mut tls, deadline) {
        Ok(()) => Connection::new(stream, Some(tls)).map_err(unreachable),
        Err(error) if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::TimedOut => {
            Err(unreachable(error))
        }
        // It has said nothing against TLS: it may be full, or want nothing of this client.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ConnectError::Unavailable { server: url.to_string(), reason: error.to_string() })
        }
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Agrees with the server on TLS.
fn shake_hands(stream: &Stream, tls: &mut TlsSession, deadline: Option<Instant>) -> io::Result<()> {
    let mut early = Vec::new();
    let mut taken = Ok(());
    loop {
        let mut wire = Vec::new();
        tls.put_out(&[], &mut wire);
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
            return if early.is_empty() { Ok(()) } else { Err(io::Error::other("the server complains")) };
        }
        wait_until(stream, PollFlags::IN, deadline)?;
        let mut chunk = [0; 4096];
        taken = match stream.receive_now(&mut chunk)? {
            None => Ok(()),
            Some(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection: it may not speak TLS there",
            )),
            Some(read) => tls.take_in(chunk.get(..read).unwrap_or_default(), &mut early).map(|_| ()),
        };
    }
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

fn connect(endpoint: &Endpoint, timeout: Duration) -> io::Result<Stream> {
    let stream = match endpoint {
        Endpoint::Tcp { host, port } => connect_tcp(host, *port, timeout)?,
        Endpoint::Unix(path) => connect_unix(path, timeout)?,
    };
    stream.set_nodelay()?;
    // Until the server has said otherwise.
    stream.set_keepalive(&Keepalive::of_client(Keepalive::DEAD_PEER_TIMEOUT))?;
    Ok(stream)
}

/// Tries every address of the host, each for its share of the time that is left.
fn connect_tcp(host: &str, port: u16, timeout: Duration) -> io::Result<Stream> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(of_resolver)?.collect();
    let deadline = deadline(Some(timeout));
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for (left, address) in (1..=addresses.len()).rev().zip(&addresses) {
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

/// Makes `NotFound` of what the resolver says, unless it may say something else the next time. The standard library
/// keeps nothing of its error but the text, which is always in English.
fn of_resolver(error: io::Error) -> io::Error {
    // As glibc and musl have it for EAI_AGAIN.
    let is_temporary = ["Temporary failure", "Try again"].iter().any(|text| error.to_string().contains(text));
    if is_temporary || error.raw_os_error().is_some() {
        return error;
    }
    io::Error::new(io::ErrorKind::NotFound, error)
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
