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
    /// Connections are being reset: nothing may send an end of the stream before that.
    is_resetting: AtomicBool,
}

struct State {
    flows: [Flow; 2],
    /// How many bytes were passed on in each direction.
    passed: [u64; 2],
    /// Both sockets of each connection: the client's, and the server's.
    connections: Vec<(Socket, Socket)>,
}

pub(crate) struct Relay {
    url: String,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
    transcript: Transcript,
    /// The sockets that were ended, kept until the client has seen the end of them.
    ended: RefCell<Vec<Socket>>,
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
        let state = State { flows: [Flow::Pass; 2], passed: [0; 2], connections: Vec::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
            is_resetting: AtomicBool::new(false),
        });
        let of_listener = shared.clone();
        let thread = thread::spawn(move || accept(&listener, &to, &of_listener));
        transcript.add(format!("a relay runs at {url}"));
        Self {
            url,
            shared,
            listener: Some(thread),
            transcript: transcript.clone(),
            ended: RefCell::default(),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The addresses of the relay's ends of the connections to the server, by which the server names
    /// its clients.
    pub(crate) fn server_side(&self) -> Vec<String> {
        let state = self.shared.state();
        let addresses = state.connections.iter().filter_map(|(_, server)| server.local_addr().ok());
        addresses.filter_map(|address| Some(address.as_socket()?.to_string())).collect()
    }

    /// Waits until the kernels of all clients know that their connections have ended.
    pub(crate) fn until_ended(&self) -> Verdict {
        let clients: Vec<_> = self
            .shared
            .state()
            .connections
            .iter()
            .filter_map(|(client, _)| address_of_client(client))
            .collect();
        for (client, relay) in clients {
            wait_until("the client's kernel knows of the end", || !is_established(client, relay))?;
        }
        Ok(())
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
        let (clients, servers): (Vec<_>, Vec<_>) = self.shared.state().connections.drain(..).unzip();
        let addresses: Vec<_> = clients.iter().filter_map(address_of_client).collect();
        match end {
            End::Fin => {
                for client in &clients {
                    // It fails if the client has ended the connection itself.
                    let _ = client.shutdown(Shutdown::Write);
                }
                // Kept, because a close would be one more thing that the client sees.
                self.ended.borrow_mut().extend(clients);
            }
            End::Reset => {
                for client in &clients {
                    client.set_linger(Some(Duration::ZERO)).expect("a socket");
                }
                // The last close of a socket that does not linger resets its connection.
                self.shared.is_resetting.store(true, Ordering::SeqCst);
                self.shared.changed.notify_all();
                wait_until("the threads of the relay use no connection", || {
                    Arc::strong_count(&self.shared) <= 2
                })?;
                drop(clients);
                self.shared.is_resetting.store(false, Ordering::SeqCst);
            }
        }
        for (client, relay) in addresses {
            wait_until("the client's kernel knows of the end", || !is_established(client, relay))?;
        }
        for server in servers {
            let _ = server.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
        Ok(())
    }
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
        for (client, server) in self.shared.state().connections.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
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
        client.set_nonblocking(false).expect("a socket");
        let Ok(server) = try_connect(to) else { continue };
        if matches!(to, Endpoint::Tcp(_)) {
            let _ = client.set_tcp_nodelay(true);
        }
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(POLL)).expect("a socket");
        }
        let copies = |socket: &Socket| {
            (socket.try_clone().expect("descriptors"), socket.try_clone().expect("descriptors"))
        };
        let ((client_in, client_out), (server_in, server_out)) = (copies(&client), copies(&server));
        shared.state().connections.push((client, server));
        let requests = shared.clone();
        thread::spawn(move || pump(client_in, server_out, Direction::Requests, &requests));
        let replies = shared.clone();
        thread::spawn(move || pump(server_in, client_out, Direction::Replies, &replies));
    }
}

/// Carries bytes until one of the sockets ends or the relay is over. An end is passed on, too.
fn pump(mut from: Socket, mut to: Socket, direction: Direction, shared: &Shared) {
    let mut buffer = vec![0; 65_536];
    while !shared.is_over() && !shared.is_resetting.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if !pass(&buffer[..length], &mut to, direction, shared) {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
    if !shared.is_resetting.load(Ordering::SeqCst) {
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Does with these bytes what the trial wants; `false` if they can no longer be passed on.
fn pass(mut bytes: &[u8], to: &mut Socket, direction: Direction, shared: &Shared) -> bool {
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
                if shared.is_over() || state.connections.is_empty() {
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
