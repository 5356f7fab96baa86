//! Listening: binding addresses, and a thread for each that accepts connections, turns away those who
//! may not or cannot come in, and starts a thread for each of the others. Nothing that goes wrong with
//! one connection, nor running out of descriptors, memory or threads, ends or delays the accepting
//! of others for longer than it lasts. `tcp` says which addresses a host name stands for, `unix_socket` binds Unix
//! sockets.

mod tcp;
mod unix_socket;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use socket2::{Domain, SockRef, Type};

pub use tcp::bind_every;
use unix_socket::SocketFile;

use super::config::{Config, Inherited, Listen, ListenAddress, Protocol};
use super::framing::Framing;
use super::send_queue::SendQueue;
use super::server_state::ServerState;
use super::{log_throttle::LogThrottle, serve};
use crate::os::fork::Descriptor;
use crate::os::socket::{PollFd, PollFlags, Stream, new_socket, wait_for};
use crate::os::sync::{Arc, AtomicU64};
use crate::os::thread::Thread;
use crate::wire::{frame, message};

/// More than the kernel's usual 128: when the queue of a burst of connects overflows, each that did not
/// fit costs its client a second.
const BACKLOG: i32 = 4096;
/// A connection's stack: reserved, not used; what is touched of it is a few KiB.
const STACK_BYTES: usize = 128 << 10;
/// How long to let go when the machine has nothing left to accept with.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// A bound address.
pub(super) struct Listener {
    socket: Descriptor,
    /// The file of a Unix socket bound here, which is removed when the listener goes.
    file: Option<SocketFile>,
    protocol: Protocol,
    /// As it is logged and told: with the port that was taken.
    pub(super) address: Listen,
    /// Counts Unix connections, whose peers have no address of their own.
    unix_peers: Arc<AtomicU64>,
}

impl Listener {
    /// Binds an address: a host name with several of them makes as many listeners.
    ///
    /// # Errors
    /// If that cannot be; the message names the address.
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
                let bound = bind_every(address, bind_tcp).map_err(in_context)?;
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

    /// Gives the file of a Unix socket that was bound here to this user and group.
    ///
    /// # Errors
    /// If that may not be; the message names the address.
    pub(super) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let in_context =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.address));
        self.file.as_ref().map_or(Ok(()), |file| file.give_to(uid, gid)).map_err(in_context)
    }

    /// Takes over a socket that listens already. Its file, if it has one, is somebody else's to remove.
    ///
    /// # Errors
    /// If it is no such socket.
    pub(super) fn adopt(inherited: Inherited, unix_peers: &Arc<AtomicU64>) -> io::Result<Self> {
        let Inherited { protocol, socket } = inherited;
        let socket = Descriptor::open(|| Ok(socket))?;
        let address = address_of(&socket).map_err(|error| {
            io::Error::new(error.kind(), format!("the inherited socket for {protocol}: {error}"))
        })?;
        let address = Listen { protocol, websocket: false, tls: false, address };
        Ok(Self { socket, file: None, protocol, address, unix_peers: unix_peers.clone() })
    }

    /// Accepts until the server stops. What is logged is logged last: whoever reads it, or does not, may keep this
    /// thread, but no client that is turned away.
    pub(super) fn run(&self, server: &Arc<ServerState>, service: &Arc<super::Service>) {
        let mut spare = spare_descriptor();
        let exhausted = LogThrottle::new(&server.maintenance, |more, _| {
            format!("accepting has failed {more} more times")
        });
        while !server.stopping.load(Acquire) {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), server.stop.poll_fd()];
            // Whatever ended the wait, the next round looks again.
            let _ = wait_for(&mut fds, None);
            if !fds[1].revents().is_empty() {
                return;
            }
            let config = server.config();
            match self.accept(server, &config) {
                Ok(Some((stream, address))) => self.receive(server, service, config, stream, address),
                Ok(None) => {
                    server.refused.fetch_add(1, Relaxed);
                }
                Err(error) if is_exhaustion(&error) => {
                    // The one who knocks is turned away with the descriptor kept for that, rather than
                    // left to wait for nothing.
                    drop(spare.take());
                    if let Ok(Some((stream, _))) = self.accept(server, &config) {
                        self.turn_away(&stream, "out of descriptors or memory");
                    }
                    server.refused.fetch_add(1, Relaxed);
                    spare = spare_descriptor();
                    exhausted.warn(|| format!("{}: cannot accept: {error}", self.address));
                    let _ = wait_for(&mut [server.stop.poll_fd()], Some(EXHAUSTED));
                }
                // The client has gone again, or somebody else has accepted it.
                Err(error) => log::debug!("{}: {error}", self.address),
            }
        }
    }

    /// The next connection and its peer's address; `None` if it may not come in.
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

    /// Gives a connection a thread of its own.
    fn receive(
        &self,
        server: &Arc<ServerState>,
        service: &Arc<super::Service>,
        config: Arc<Config>,
        stream: Stream,
        address: String,
    ) {
        let framing = match self.framing(&config) {
            Ok(framing) => framing,
            Err(error) => {
                server.refused.fetch_add(1, Relaxed);
                return server.strangers.warn(|| format!("refused {address}: {}: {error}", self.address));
            }
        };
        let secret = config.auth_token.clone();
        let secret = secret.filter(|_| self.protocol == Protocol::Message && stream.is_tcp());
        let (id, send_queue) = match server.admit(stream, &config, framing) {
            Ok(admitted) => admitted,
            Err(stream) => {
                server.refused.fetch_add(1, Relaxed);
                self.turn_away(&stream, "too many connections");
                drop(stream);
                return server.full.warn(|| {
                    format!("refused {address}: too many connections ({})", config.connections_max)
                });
            }
        };
        let entry = serve::AcceptedConnection {
            id,
            server: server.clone(),
            service: service.clone(),
            send_queue: send_queue.clone(),
            config,
            protocol: self.protocol,
            websocket: self.address.websocket,
            secret,
            address,
        };
        match Thread::start(c"lockd-conn", STACK_BYTES, move || entry.serve()) {
            Ok(thread) => server.set_thread(id, thread),
            Err(error) => self.give_up(server, id, &send_queue, &error),
        }
    }

    /// What a new connection here is wrapped in.
    fn framing(&self, config: &Config) -> io::Result<Option<Framing>> {
        let tls = match (self.address.tls, &config.tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.session()?),
            // Taken away by a reload. Who asks for TLS must never be served without.
            (true, None) => return Err(io::Error::other("there is no certificate any more")),
        };
        Ok((tls.is_some() || self.address.websocket).then(|| Framing::new(tls)))
    }

    /// Says why, as far as the socket takes it at once, in a way a client here understands. In TLS nothing can
    /// be said at once.
    fn turn_away(&self, stream: &Stream, why: &str) {
        let mut said = Vec::new();
        match (&self.address, self.protocol) {
            (Listen { tls: true, .. }, _) => return,
            (Listen { websocket: true, .. }, _) => {
                let status = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n";
                said.extend_from_slice(format!("{status}{why}\n").as_bytes());
            }
            (_, Protocol::Lockd | Protocol::Glockd) => {
                said.extend_from_slice(format!("0 Refused: {why}\r\n").as_bytes());
            }
            (_, Protocol::Message) => frame::encode(&mut said, |body| message::encode_error(body, why)),
        }
        // Nobody is owed more than the attempt.
        let _ = stream.send_now(&said);
    }

    fn give_up(&self, server: &ServerState, id: u64, send_queue: &SendQueue, error: &io::Error) {
        server.refused.fetch_add(1, Relaxed);
        self.turn_away(&send_queue.stream, "out of resources");
        send_queue.hang_up();
        server.leave(id);
        server.full.warn(|| format!("{}: cannot start a thread: {error}", self.address));
    }
}

/// A listening socket, and its address with the port that was taken.
fn bind_tcp(address: SocketAddr) -> io::Result<(Descriptor, SocketAddr)> {
    let descriptor = new_socket(Domain::for_address(address))?;
    let socket = SockRef::from(&descriptor);
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((descriptor, bound))
}

/// The address of a listening socket, which will not block from then on.
fn address_of(socket: &Descriptor) -> io::Result<ListenAddress> {
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

/// A descriptor that can be let go when there are no others.
fn spare_descriptor() -> Option<Descriptor> {
    Descriptor::open(|| File::open("/dev/null").map(OwnedFd::from)).ok()
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| exhausted.contains(&error))
}
