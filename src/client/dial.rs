//! Connects to a server: resolves its address, connects within a timeout, sets the keepalive by
//! which a lost server is noticed, and does the TLS handshake if the address asks for TLS. Sends no
//! message.

use std::io;
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket};

use super::connect_error::{ConnectError, ConnectErrorKind, ConnectRefusal};
use super::connection::ServerConnection;
use super::reply_reader::name_protocol;
use super::url::{Endpoint, ServerPlace, ServerUrl};
use super::wait_hook::WaitHook;
use crate::os::Keepalive;
use crate::os::socket::{PollFd, PollFlags, Stream, wait_for};
use crate::os::tls::{TlsSession, client_session};
use crate::wire::first_bytes::{DetectedProtocol, detect_protocol};

/// How to open a session on a server.
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
    /// The session's name in listings and deadlock reports. By default it has none.
    pub owner: Option<&'a str>,
    /// How long connecting may take in all; only resolving names may take longer. By default
    /// without limit.
    pub timeout: Duration,
    /// How long the program may need to end its work once the session is lost; more than an hour
    /// counts as an hour. If the *server* ends the session (by a kick, for instance), it keeps the
    /// locks for that long, or until this end closes the connection, which means that the work has
    /// ended. So the connection of a lost session stays open until the session is closed or
    /// dropped. Zero, the default: the server may give the locks away as soon as this end knows
    /// that they are lost.
    pub wind_down: Duration,
    /// Whether a signal handler that runs in a thread that waits for a lock ends the wait with
    /// [`AcquireError::Interrupted`](crate::broker::AcquireError::Interrupted). The session then
    /// keeps its place in the queue for the rest of the call's time limit. The same call again, or
    /// `wait`, goes on waiting there; `release` gives it up. By default signal handlers do not end
    /// waits. [`connect_and_acquire`](crate::Session::connect_and_acquire) reports signal handlers
    /// instead, and its caller decides.
    pub interruptible: bool,
    /// Whether the session is to survive the end of its connection, a restart or a crash of the
    /// server: it then connects again and [resumes](crate::Session#sessions-that-resume). Also asked
    /// for by `?resume` after the address. By default it is lost with its connection.
    pub resume: bool,
}

impl Default for ConnectOptions<'_> {
    fn default() -> Self {
        Self {
            owner: None,
            timeout: Duration::MAX,
            wind_down: Duration::ZERO,
            interruptible: false,
            resume: false,
        }
    }
}

/// The time `limit` from now; `None` for no limit, and for a limit beyond the clock's range.
pub(super) fn deadline(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?)
}

/// The addresses of the server at this place. The time that this takes cannot be limited.
pub(super) fn resolve(place: &ServerPlace) -> Result<Vec<SockAddr>, ConnectError> {
    match &place.endpoint {
        Endpoint::Tcp { host, port } => {
            let addresses = (host.as_str(), *port).to_socket_addrs();
            let unresolved = |error| ConnectError::Unresolved { server: place.to_string(), error };
            Ok(addresses.map_err(unresolved)?.map(SockAddr::from).collect())
        }
        Endpoint::Unix(path) => match SockAddr::unix(path) {
            Ok(address) => Ok(vec![address]),
            Err(error) => Err(ConnectError::Unreachable { server: place.to_string(), error }),
        },
    }
}

/// Connects within `timeout` to one of the addresses of the server at this place.
/// If the hook ends the wait, that is an error of the kind [`io::ErrorKind::Interrupted`].
pub(super) fn dial(
    url: &ServerUrl,
    place: &ServerPlace,
    addresses: &[SockAddr],
    timeout: Duration,
    hook: &mut WaitHook<'_>,
) -> Result<ServerConnection, ConnectError> {
    let unreachable = |error| ConnectError::Unreachable { server: place.to_string(), error };
    let refused = |kind, reason| ConnectRefusal::new(kind, reason).of(place);
    let deadline = deadline(Some(timeout));
    let (Some(files), Endpoint::Tcp { host, .. }) = (url.tls(), &place.endpoint) else {
        let stream = connect(addresses, timeout, hook).map_err(unreachable)?;
        return ServerConnection::new(stream, None).map_err(unreachable);
    };
    // Before connecting: if our own files are wrong, the server need not be involved.
    let mut tls = client_session(files, host).map_err(|reason| refused(ConnectErrorKind::Local, reason))?;
    let stream = connect(addresses, timeout, hook).map_err(unreachable)?;
    match tls_handshake(&stream, &mut tls, deadline, hook) {
        Ok(()) => ServerConnection::new(stream, Some(tls)).map_err(unreachable),
        Err(error) if error.raw_os_error().is_some() || error.kind() != io::ErrorKind::Other => {
            Err(unreachable(error))
        }
        Err(error) => Err(refused(ConnectErrorKind::Tls, error.to_string())),
    }
}

/// Does the TLS handshake.
fn tls_handshake(
    stream: &Stream,
    tls: &mut TlsSession,
    deadline: Option<Instant>,
    hook: &mut WaitHook<'_>,
) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer to the TLS handshake in time");
    let mut wait_until = |ready_for| match wait_until(PollFd::new(stream, ready_for), deadline, hook)? {
        true => Ok(()),
        false => Err(late()),
    };
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
                None => wait_until(PollFlags::OUT)?,
            }
        }
        // Only now, after the alert that tells the server what is wrong has been sent.
        taken?;
        if !tls.is_handshaking() {
            // A server of this protocol speaks first only to report an error, and then hangs up.
            let problem = || name_protocol(&early).unwrap_or_else(|| "the server complains".to_owned());
            return if early.is_empty() { Ok(()) } else { Err(io::Error::other(problem())) };
        }
        wait_until(PollFlags::IN)?;
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

/// What is wrong with a server that does not answer in TLS. `None` if its first bytes do not show
/// it.
pub(super) fn without_tls(first: &[u8]) -> Option<io::Error> {
    let speaks = match detect_protocol(first)? {
        DetectedProtocol::Tls => return None,
        DetectedProtocol::Message => "it does not speak TLS there: write tcp:// instead of tls://".to_owned(),
        DetectedProtocol::Http | DetectedProtocol::Text => {
            format!("it does not speak TLS there; {}", name_protocol(first).unwrap_or_default())
        }
    };
    Some(io::Error::other(speaks))
}

/// Waits until the socket is ready. False if it is not ready before the deadline.
fn wait_until(socket: PollFd<'_>, deadline: Option<Instant>, hook: &mut WaitHook<'_>) -> io::Result<bool> {
    let mut fds = [socket];
    loop {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(false);
        }
        let is_interrupted = match wait_for(&mut fds, hook.sleep_limit(deadline)) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) => return Err(error),
        };
        hook.check_after_sleep(is_interrupted)?;
        if !is_interrupted && !fds[0].revents().is_empty() {
            return Ok(true);
        }
    }
}

fn connect(addresses: &[SockAddr], timeout: Duration, hook: &mut WaitHook<'_>) -> io::Result<Stream> {
    let stream = match addresses {
        [address] if address.is_unix() => connect_unix(address, timeout, hook)?,
        addresses => connect_tcp(addresses, timeout, hook)?,
    };
    stream.set_nodelay()?;
    // Until hello has returned the server's figures.
    stream.set_keepalive(&Keepalive::client(Keepalive::DEAD_PEER_TIMEOUT))?;
    Ok(stream)
}

/// Tries every address of the host, each for an equal share of the time left.
fn connect_tcp(addresses: &[SockAddr], timeout: Duration, hook: &mut WaitHook<'_>) -> io::Result<Stream> {
    let deadline = deadline(Some(timeout));
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for (left, address) in (1..=addresses.len()).rev().zip(addresses) {
        let rest = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
        let share = rest / u32::try_from(left).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        result = Stream::connect(address.domain(), |socket| {
            connect_within(socket, address, share, hook)?;
            refuse_self_connection(socket)
        });
        match &result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    result
}

/// Connects within `limit`, and leaves the socket as it was: blocking.
fn connect_within(
    socket: &Socket,
    address: &SockAddr,
    limit: Duration,
    hook: &mut WaitHook<'_>,
) -> io::Result<()> {
    let deadline = deadline(Some(limit));
    socket.set_nonblocking(true)?;
    let begun = socket.connect(address);
    socket.set_nonblocking(false)?;
    match begun {
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        done => return done,
    }
    if !wait_until(PollFd::new(socket, PollFlags::OUT), deadline, hook)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket.take_error()?.map_or(Ok(()), Err)
}

/// TCP can connect a socket to itself, if nothing listens on the port and the client's own port
/// happens to be the same one.
pub(super) fn refuse_self_connection(socket: &Socket) -> io::Result<()> {
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}

fn connect_unix(address: &SockAddr, timeout: Duration, hook: &mut WaitHook<'_>) -> io::Result<Stream> {
    let deadline = deadline(Some(timeout));
    Stream::connect(Domain::UNIX, |socket| {
        loop {
            let sleep_limit = hook.sleep_limit(deadline).unwrap_or(timeout);
            // For a Unix socket this also limits connecting. Zero would mean no limit.
            socket.set_write_timeout(Some(sleep_limit.max(Duration::from_millis(1))))?;
            let is_interrupted = match socket.connect(address) {
                Ok(()) => return socket.set_write_timeout(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) => return Err(error),
            };
            hook.check_after_sleep(is_interrupted)?;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    })
}
