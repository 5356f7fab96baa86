//! Listening: binds addresses, and runs a thread for each that accepts connections, refuses those
//! that the access list excludes (`access_list`) and those beyond a limit, and starts a thread for
//! each of the others. If something goes wrong with one connection, or
//! descriptors, memory or threads run out, accepting goes on as soon as it can. `tcp` binds TCP
//! addresses, `unix_socket` Unix sockets.

mod tcp;
pub(super) mod unix_socket;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use socket2::{SockRef, Type};

pub use tcp::bind_every;
use unix_socket::SocketFile;

use super::config::{Config, Inherited, Listen, ListenAddress, Protocol};
use super::framing::Framing;
use super::handshake::AcceptedConnection;
use super::log_throttle::LogThrottle;
use super::message::Service;
use super::send_queue::SendQueue;
use super::serve::{serve, start_thread};
use super::server_state::ServerState;
use super::snapshot::types::{AddressSnapshot, ListenerSnapshot};
use crate::os::fork::CloseOnForkFd;
use crate::os::socket::{PollFd, PollFlags, Stream, wait_for};
use crate::os::sync::{Arc, AtomicU64};
use crate::wire::{frame, message};

/// How long to pause when there are no descriptors or memory left to accept with.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A bound address.
pub(super) struct Listener {
    socket: CloseOnForkFd,
    /// The file of a Unix socket bound here, which is removed when the listener goes.
    file: Option<SocketFile>,
    protocol: Protocol,
    /// With the port that was taken for port 0.
    pub(super) address: Listen,
    /// Numbers connections over Unix sockets, whose peers have no address.
    unix_peers: Arc<AtomicU64>,
}

impl Listener {
    /// Binds an address. A host name with several addresses becomes several listeners.
    ///
    /// # Errors
    /// If it cannot be bound; the message names the address.
    pub(super) fn bind(
        listen: &Listen,
        config: &Config,
        unix_peers: &Arc<AtomicU64>,
    ) -> io::Result<Vec<Self>> {
        let in_context = |error: io::Error| io::Error::new(error.kind(), format!("{listen}: {error}"));
        let new = |socket, file, address| Self {
            socket,
            file,
            protocol: listen.protocol,
            address: Listen { address, ..listen.clone() },
            unix_peers: unix_peers.clone(),
        };
        match &listen.address {
            ListenAddress::Tcp(address) => {
                let bound = bind_every(address, tcp::bind).map_err(in_context)?;
                let bound = bound.into_iter();
                Ok(bound.map(|(socket, at)| new(socket, None, ListenAddress::Tcp(at.to_string()))).collect())
            }
            ListenAddress::Unix(path) => {
                let (socket, file) = unix_socket::bind(path, config.unix_mode).map_err(in_context)?;
                let path = file.path().to_owned();
                Ok(vec![new(socket, Some(file), ListenAddress::Unix(path))])
            }
        }
    }

    /// Makes this user and group the owners of the file of a Unix socket that was bound here.
    ///
    /// # Errors
    /// If this process may not do that; the message names the address.
    pub(super) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let in_context =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.address));
        self.file.as_ref().map_or(Ok(()), |file| file.give_to(uid, gid)).map_err(in_context)
    }

    /// Takes over a socket that listens already. If it has a file, that is left to whichever
    /// process made it.
    ///
    /// # Errors
    /// If it is not a listening stream socket.
    pub(super) fn adopt(inherited: Inherited, unix_peers: &Arc<AtomicU64>) -> io::Result<Self> {
        let Inherited { protocol, socket } = inherited;
        let socket = CloseOnForkFd::open(|| Ok(socket))?;
        let address = address_of(&socket).map_err(|error| {
            io::Error::new(error.kind(), format!("the inherited socket for {protocol}: {error}"))
        })?;
        let address = Listen { protocol, websocket: false, tls: false, address };
        Ok(Self { socket, file: None, protocol, address, unix_peers: unix_peers.clone() })
    }

    /// Its state, with its descriptors.
    pub(super) fn snapshot(&self) -> ListenerSnapshot {
        let Listen { protocol, websocket, tls, ref address } = self.address;
        ListenerSnapshot {
            fd: self.socket.as_fd().as_raw_fd(),
            protocol,
            websocket,
            tls,
            address: match address {
                ListenAddress::Tcp(address) => AddressSnapshot::Tcp(address.clone()),
                ListenAddress::Unix(path) => AddressSnapshot::Unix(path.as_os_str().as_bytes().to_vec()),
            },
            file: self.file.as_ref().map(SocketFile::snapshot),
        }
    }

    /// How many connections there have been over Unix sockets, to any listener of the server.
    pub(super) fn unix_peers(&self) -> u64 {
        self.unix_peers.load(Relaxed)
    }

    /// Takes over a listener from an earlier image of the program.
    ///
    /// # Errors
    /// If its descriptors do not stand for what the snapshot says. The message names the address.
    pub(super) fn restore(snapshot: ListenerSnapshot, unix_peers: &Arc<AtomicU64>) -> io::Result<Self> {
        let listen = listen_of(&snapshot);
        let in_context = |error: io::Error| io::Error::new(error.kind(), format!("{listen}: {error}"));
        let restore = || {
            let socket = CloseOnForkFd::take_over(snapshot.fd)?;
            if address_of(&socket)? != listen.address {
                return Err(io::Error::other("the descriptor listens somewhere else"));
            }
            let file = match (snapshot.file, &listen.address) {
                (None, _) => None,
                (Some(file), ListenAddress::Unix(path)) => Some(SocketFile::restore(path, file)?),
                (Some(_), ListenAddress::Tcp(_)) => return Err(io::Error::other("a TCP socket has no file")),
            };
            let (protocol, address) = (listen.protocol, listen.clone());
            Ok(Self { socket, file, protocol, address, unix_peers: unix_peers.clone() })
        };
        restore().map_err(in_context)
    }

    /// Accepts until the server stops. A refusal is logged only after the client has been told:
    /// logging may block this thread if the log's reader is slow, but must not keep that client
    /// waiting.
    pub(super) fn run(&self, server: &Arc<ServerState>, service: &Arc<Service>) {
        let mut spare = spare_descriptor();
        let exhausted = LogThrottle::new(&server.maintenance, |more, _| {
            format!("accepting has failed {more} more times")
        });
        while !server.stopping.load(Acquire) {
            server.parking.park_if_requested(|| None);
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), server.stop.poll_fd()];
            // Whatever ended the wait, `accept` does not block.
            let _ = wait_for(&mut fds, None);
            if !fds[1].revents().is_empty() {
                return;
            }
            let config = server.config();
            match self.accept(server, &config) {
                Ok(Some((stream, address))) => self.start(server, service, config, stream, address),
                Ok(None) => {
                    server.refused.fetch_add(1, Relaxed);
                }
                Err(error) if is_exhaustion(&error) => {
                    // The spare descriptor is closed, so that the client can be accepted and told,
                    // rather than left waiting.
                    drop(spare.take());
                    if let Ok(Some((stream, _))) = self.accept(server, &config) {
                        self.turn_away(&stream, "out of descriptors or memory");
                    }
                    server.refused.fetch_add(1, Relaxed);
                    spare = spare_descriptor();
                    exhausted.warn(|| format!("{}: cannot accept: {error}", self.address));
                    let _ = wait_for(&mut [server.stop.poll_fd()], Some(EXHAUSTED_PAUSE));
                }
                // The client has gone again, or another process has accepted it.
                Err(error) => log::debug!("{}: {error}", self.address),
            }
        }
    }

    /// Accepts the next connection, and returns it with its peer's address; `None` if the access
    /// list refuses it.
    fn accept(&self, server: &ServerState, config: &Config) -> io::Result<Option<(Stream, String)>> {
        let (stream, peer) = Stream::accept(&self.socket)?;
        let Some(peer) = peer.as_socket() else {
            let number = self.unix_peers.fetch_add(1, Relaxed) + 1;
            return Ok(Some((stream, format!("unix:{number}"))));
        };
        if !config.allows(peer.ip()) {
            let peer = peer.ip().to_canonical();
            server.unlisted.warn(|| format!("refused {peer} at {}: not on the access list", self.address));
            return Ok(None);
        }
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Ok(Some((stream, peer.to_string())))
    }

    /// Starts a thread for an accepted connection.
    fn start(
        &self,
        server: &Arc<ServerState>,
        service: &Arc<Service>,
        config: Arc<Config>,
        stream: Stream,
        address: String,
    ) {
        let framing = match self.framing(&config) {
            Ok(framing) => framing,
            Err(error) => {
                server.refused.fetch_add(1, Relaxed);
                return server.refused_early.warn(|| format!("refused {address}: {}: {error}", self.address));
            }
        };
        let secret = config.auth_token.clone();
        let secret = secret.filter(|_| self.protocol == Protocol::Message && stream.is_tcp());
        let (id, send_queue) = match server.admit(stream, &config, framing, (self.protocol, &address)) {
            Ok(admitted) => admitted,
            Err(stream) => {
                server.refused.fetch_add(1, Relaxed);
                self.turn_away(&stream, "too many connections");
                drop(stream);
                return server.no_room.warn(|| {
                    format!("refused {address}: too many connections ({})", config.connections_max)
                });
            }
        };
        let accepted = AcceptedConnection {
            id,
            server: server.clone(),
            send_queue: send_queue.clone(),
            config,
            protocol: self.protocol,
            websocket: self.address.websocket,
            secret,
            address,
        };
        let service = service.clone();
        if let Err(error) = start_thread(server, id, move || serve(&accepted, service)) {
            self.give_up(server, id, &send_queue, &error);
        }
    }

    /// The framing of a new connection, if it has one.
    fn framing(&self, config: &Config) -> io::Result<Option<Framing>> {
        let tls = match (self.address.tls, &config.tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.session()?),
            // A reload has removed it. A listener for TLS must never serve without it.
            (true, None) => return Err(io::Error::other("there is no certificate any more")),
        };
        Ok((tls.is_some() || self.address.websocket).then(|| Framing::new(tls)))
    }

    /// Tells a client why it is refused, in the protocol of this listener and as far as the socket
    /// takes it at once. In TLS nothing can be said before the handshake.
    fn turn_away(&self, stream: &Stream, why: &str) {
        let mut reply = Vec::new();
        match (&self.address, self.protocol) {
            (Listen { tls: true, .. }, _) => return,
            (Listen { websocket: true, .. }, _) => {
                let status = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n";
                reply.extend_from_slice(format!("{status}{why}\n").as_bytes());
            }
            (_, Protocol::Lockd | Protocol::Glockd) => {
                reply.extend_from_slice(format!("0 Refused: {why}\r\n").as_bytes());
            }
            (_, Protocol::Message) => frame::encode(&mut reply, |body| message::encode_error(body, why)),
        }
        // If the socket does not take it, the client is refused without a reason.
        let _ = stream.send_now(&reply);
    }

    fn give_up(&self, server: &ServerState, id: u64, send_queue: &SendQueue, error: &io::Error) {
        server.refused.fetch_add(1, Relaxed);
        self.turn_away(&send_queue.stream, "out of resources");
        send_queue.hang_up();
        server.remove(id);
        server.no_room.warn(|| format!("{}: cannot start a thread: {error}", self.address));
    }
}

/// The address of a listener as data.
pub(super) fn listen_of(snapshot: &ListenerSnapshot) -> Listen {
    let ListenerSnapshot { protocol, websocket, tls, .. } = *snapshot;
    let address = match &snapshot.address {
        AddressSnapshot::Tcp(address) => ListenAddress::Tcp(address.clone()),
        AddressSnapshot::Unix(path) => ListenAddress::Unix(OsStr::from_bytes(path).into()),
    };
    Listen { protocol, websocket, tls, address }
}

/// The address of a listening socket. Makes the socket non-blocking.
fn address_of(socket: &CloseOnForkFd) -> io::Result<ListenAddress> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no stream socket that listens"));
    }
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    if let Some(tcp) = address.as_socket() {
        return Ok(ListenAddress::Tcp(tcp.to_string()));
    }
    let path = address.as_pathname().ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "it is neither a TCP socket nor a Unix one with a path")
    })?;
    Ok(ListenAddress::Unix(path.to_owned()))
}

/// A descriptor that can be closed when there are no others left.
fn spare_descriptor() -> Option<CloseOnForkFd> {
    CloseOnForkFd::open(|| File::open("/dev/null").map(OwnedFd::from)).ok()
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| exhausted.contains(&error))
}
