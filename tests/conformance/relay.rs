//! A relay between a client and its server: it carries the bytes of both directions, and does to
//! each of them what a trial asks for. It listens on TCP, or on a Unix socket.
//!
//! A relay acknowledges what it has read. So a server behind it may believe that the client knows
//! something that the relay still holds. Trials must not ask a client for more than it can know:
//! they end the client's side before they end the server's.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::driver::HANG;
use crate::support::socket::{Endpoint, try_connect};
use crate::transcript::Transcript;
use crate::verdict::{Verdict, ensure};

/// How often the threads of a relay look whether it has ended.
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Requests,
    Replies,
}

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Pass,
    /// They are kept, and passed on later.
    Hold,
    /// Each piece is passed on so much later.
    Delay(Duration),
    /// So many bytes are passed on, and the rest is kept.
    First(usize),
}

/// How the connection of a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// What the threads of a relay share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    is_over: AtomicBool,
    /// New connections are reset.
    is_refusing: AtomicBool,
}

/// A client's connection, and the relay's own one to the server.
struct Carried {
    client: Socket,
    server: Socket,
    /// One of them is about to be ended: nothing is carried any more, and no end is passed on.
    is_ending: AtomicBool,
}

struct State {
    flows: [Flow; 2],
    /// How many bytes were passed on in each direction.
    passed: [u64; 2],
    connections: Vec<Arc<Carried>>,
    /// How clients have ended their connections, in the order in which they did.
    ended_by_clients: Vec<End>,
}

pub(crate) struct Relay {
    url: String,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
    transcript: Transcript,
    /// Sockets of connections that were ended. A close would be one more thing that the peer sees.
    kept: RefCell<Vec<Socket>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

impl Relay {
    /// A relay before the server at `to`, for clients whose URLs have this scheme.
    pub(crate) fn start(host: &str, scheme: &str, to: &str, transcript: &Transcript) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let to: SocketAddr = to.parse().expect("an address");
        Self::run(format!("{scheme}://{address}"), Socket::from(listener), Endpoint::Tcp(to), transcript)
    }

    /// A relay at a Unix socket, before the Unix socket `to` of a server.
    pub(crate) fn start_unix(path: &Path, to: &Path, transcript: &Transcript) -> Self {
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        listener.bind(&SockAddr::unix(path).expect("a short path")).expect("a new path");
        listener.listen(16).expect("a socket that is bound");
        Self::run(format!("unix:{}", path.display()), listener, Endpoint::Unix(to.to_owned()), transcript)
    }

    fn run(url: String, listener: Socket, to: Endpoint, transcript: &Transcript) -> Self {
        let state = State {
            flows: [Flow::Pass; 2],
            passed: [0; 2],
            connections: Vec::new(),
            ended_by_clients: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
        });
        let of_listener = shared.clone();
        let thread = thread::spawn(move || accept(&listener, &to, &of_listener));
        transcript.add(format!("a relay runs at {url}"));
        Self { url, shared, listener: Some(thread), transcript: transcript.clone(), kept: RefCell::default() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The addresses of the relay's ends of the connections to the server, by which the server names
    /// its clients.
    pub(crate) fn server_side(&self) -> Vec<String> {
        let state = self.shared.state();
        let addresses = state.connections.iter().filter_map(|carried| carried.server.local_addr().ok());
        addresses.filter_map(|address| Some(address.as_socket()?.to_string())).collect()
    }

    /// Waits until the kernels of all clients know that their connections have ended.
    pub(crate) fn until_ended(&self) -> Verdict {
        let connections = self.shared.state().connections.clone();
        let addresses = connections.iter().filter_map(|carried| address_of_client(&carried.client));
        until_known(addresses)
    }

    /// From now on new connections are reset, or are not any more.
    pub(crate) fn refuse(&self, is_refusing: bool) {
        self.transcript
            .add(format!("relay: new connections are {}", if is_refusing { "reset" } else { "carried" }));
        self.shared.is_refusing.store(is_refusing, Ordering::SeqCst);
    }

    /// How clients have ended their connections so far.
    pub(crate) fn ended_by_clients(&self) -> Vec<End> {
        self.shared.state().ended_by_clients.clone()
    }

    /// From now on this is done to the bytes of this direction.
    pub(crate) fn set(&self, direction: Direction, flow: Flow) {
        self.transcript.add(format!("relay: {direction:?}: {flow:?}"));
        self.shared.state().flows[direction as usize] = flow;
        self.shared.changed.notify_all();
    }

    /// How many bytes were passed on in this direction so far.
    pub(crate) fn passed(&self, direction: Direction) -> u64 {
        self.shared.state().passed[direction as usize]
    }

    /// Waits until more bytes than `before` have been passed on.
    pub(crate) fn until_passed(&self, direction: Direction, before: u64) -> Verdict {
        wait_until("the relay passes on more", || self.passed(direction) > before)
    }

    /// Ends all connections: towards the client, and towards the server when the client's kernel
    /// knows.
    pub(crate) fn end(&self, end: End) -> Verdict {
        self.transcript.add(format!("relay: ends all connections: {end:?}"));
        match end {
            End::Fin => {
                let connections = std::mem::take(&mut self.shared.state().connections);
                for carried in &connections {
                    // It fails if the client has ended the connection itself.
                    let _ = carried.client.shutdown(Shutdown::Write);
                }
                until_known(connections.iter().filter_map(|carried| address_of_client(&carried.client)))?;
                for carried in &connections {
                    let _ = carried.server.shutdown(Shutdown::Both);
                    self.kept.borrow_mut().push(carried.client.try_clone().expect("descriptors"));
                }
            }
            End::Reset => {
                for server in self.reset_clients()? {
                    let _ = server.shutdown(Shutdown::Both);
                }
            }
        }
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Resets all connections towards the client, and says nothing to the server.
    pub(crate) fn reset_client_side(&self) -> Verdict {
        self.transcript.add("relay: resets all connections towards the client");
        let servers = self.reset_clients()?;
        self.kept.borrow_mut().extend(servers);
        Ok(())
    }

    /// Resets all connections towards the server, and ends the streams towards the client after that.
    pub(crate) fn reset_server_side(&self) -> Verdict {
        self.transcript.add("relay: resets all connections towards the server");
        for Carried { client, server, .. } in self.taken()? {
            server.set_linger(Some(Duration::ZERO)).expect("a socket");
            drop(server);
            let _ = client.shutdown(Shutdown::Write);
            self.kept.borrow_mut().push(client);
        }
        Ok(())
    }

    /// Ends all streams towards the client; what it sends is still passed on. So is its end, also a
    /// reset, which becomes an end of the stream.
    pub(crate) fn end_replies(&self) -> Verdict {
        self.transcript.add("relay: ends all streams towards the client");
        let connections = self.shared.state().connections.clone();
        for carried in &connections {
            let _ = carried.client.shutdown(Shutdown::Write);
        }
        until_known(connections.iter().filter_map(|carried| address_of_client(&carried.client)))
    }

    /// Resets all connections towards the client; returns those towards the server.
    fn reset_clients(&self) -> Verdict<Vec<Socket>> {
        let mut servers = Vec::new();
        for Carried { client, server, .. } in self.taken()? {
            let address = address_of_client(&client);
            client.set_linger(Some(Duration::ZERO)).expect("a socket");
            // The last close of a socket that does not linger resets its connection.
            drop(client);
            until_known(address.into_iter())?;
            servers.push(server);
        }
        Ok(servers)
    }

    /// All connections, which nothing is carried on any more.
    fn taken(&self) -> Verdict<Vec<Carried>> {
        let connections = std::mem::take(&mut self.shared.state().connections);
        for carried in &connections {
            carried.is_ending.store(true, Ordering::SeqCst);
        }
        self.shared.changed.notify_all();
        wait_until("the threads of the relay use no connection", || {
            connections.iter().all(|carried| Arc::strong_count(carried) == 1)
        })?;
        Ok(connections.into_iter().filter_map(Arc::into_inner).collect())
    }
}

/// Waits until the clients' kernels know that these connections, of a client's address and the
/// relay's, have ended.
fn until_known(addresses: impl Iterator<Item = (SocketAddrV4, SocketAddrV4)>) -> Verdict {
    for (client, relay) in addresses {
        wait_until("the client's kernel knows of the end", || !is_established(client, relay))?;
    }
    Ok(())
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Verdict {
    let end = Instant::now() + HANG;
    while !condition() {
        ensure(Instant::now() < end, || format!("never: {what}"))?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The client's address and the relay's, of a connection over TCP.
fn address_of_client(socket: &Socket) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let address = |address: std::io::Result<SockAddr>| address.ok()?.as_socket_ipv4();
    Some((address(socket.peer_addr())?, address(socket.local_addr())?))
}

/// Whether the client's end of the connection is open, as far as its kernel knows.
fn is_established(client: SocketAddrV4, relay: SocketAddrV4) -> bool {
    let digits = |address: SocketAddrV4| {
        let host = u32::from_ne_bytes(address.ip().octets());
        format!("{host:08X}:{:04X}", address.port())
    };
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let open = format!(" {} {} 01 ", digits(client), digits(relay));
    table.contains(&open)
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        for carried in self.shared.state().connections.drain(..) {
            let _ = carried.client.shutdown(Shutdown::Both);
            let _ = carried.server.shutdown(Shutdown::Both);
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn accept(listener: &Socket, to: &Endpoint, shared: &Arc<Shared>) {
    listener.set_nonblocking(true).expect("a socket");
    while !shared.is_over() {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        if shared.is_refusing.load(Ordering::SeqCst) {
            client.set_linger(Some(Duration::ZERO)).expect("a socket");
            continue;
        }
        client.set_nonblocking(false).expect("a socket");
        let Ok(server) = try_connect(to) else { continue };
        if matches!(to, Endpoint::Tcp(_)) {
            let _ = client.set_tcp_nodelay(true);
        }
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(POLL)).expect("a socket");
        }
        let carried = Arc::new(Carried { client, server, is_ending: AtomicBool::new(false) });
        shared.state().connections.push(carried.clone());
        for direction in [Direction::Requests, Direction::Replies] {
            let (carried, shared) = (carried.clone(), shared.clone());
            thread::spawn(move || pump(&carried, direction, &shared));
        }
    }
}

/// Carries bytes until one of the sockets ends or the relay is over. An end is passed on, too.
fn pump(carried: &Carried, direction: Direction, shared: &Shared) {
    let (mut from, to) = match direction {
        Direction::Requests => (&carried.client, &carried.server),
        Direction::Replies => (&carried.server, &carried.client),
    };
    let mut buffer = vec![0; 65_536];
    while !shared.is_over() && !carried.is_ending.load(Ordering::SeqCst) {
        let end = match from.read(&mut buffer) {
            Ok(0) => End::Fin,
            Ok(length) => {
                if pass(&buffer[..length], to, direction, carried, shared) {
                    continue;
                }
                break;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(_) => End::Reset,
        };
        if direction == Direction::Requests {
            shared.state().ended_by_clients.push(end);
        }
        break;
    }
    if !carried.is_ending.load(Ordering::SeqCst) {
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Does with these bytes what the trial wants; `false` if they can no longer be passed on.
fn pass(mut bytes: &[u8], mut to: &Socket, direction: Direction, carried: &Carried, shared: &Shared) -> bool {
    let place = direction as usize;
    let mut is_delayed = false;
    while !bytes.is_empty() {
        let mut state = shared.state();
        let length = match state.flows[place] {
            Flow::Pass => bytes.len(),
            Flow::Delay(_) if is_delayed => bytes.len(),
            Flow::Delay(time) => {
                drop(state);
                thread::sleep(time);
                is_delayed = true;
                continue;
            }
            Flow::First(length) if length > 0 => {
                let length = length.min(bytes.len());
                if let Flow::First(left) = &mut state.flows[place] {
                    *left -= length;
                }
                length
            }
            Flow::Hold | Flow::First(_) => {
                if shared.is_over() || !state.connections.iter().any(|other| std::ptr::eq(&**other, carried))
                {
                    return false;
                }
                drop(shared.changed.wait_timeout(state, POLL));
                continue;
            }
        };
        drop(state);
        let (now, later) = bytes.split_at(length);
        if to.write_all(now).is_err() {
            return false;
        }
        shared.state().passed[place] += now.len() as u64;
        bytes = later;
    }
    true
}
