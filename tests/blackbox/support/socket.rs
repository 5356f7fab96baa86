//! Connected sockets with time-outs, so that no test hangs.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::DEADLINE;

/// The address of one of the server's listeners.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connection to `endpoint` on which every read and write ends at the deadline.
pub(crate) fn connect(endpoint: &Endpoint) -> Socket {
    try_connect(endpoint).unwrap_or_else(|error| panic!("cannot connect to {endpoint:?}: {error}"))
}

/// The same, for tests that expect that it may fail.
pub(crate) fn try_connect(endpoint: &Endpoint) -> std::io::Result<Socket> {
    let (domain, address) = match endpoint {
        Endpoint::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Endpoint::Unix(path) => (Domain::UNIX, SockAddr::unix(path).expect("a path that fits")),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.connect(&address)?;
    if domain != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    Ok(socket)
}

/// Ends a TCP connection with a reset instead of an orderly close.
pub(crate) fn reset(socket: Socket) {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

/// Everything the peer sends until it ends the connection; a reset counts as an end.
pub(crate) fn read_to_end(reader: &mut impl Read) -> Vec<u8> {
    let mut received = Vec::new();
    match reader.read_to_end(&mut received) {
        Ok(_) => received,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => received,
        Err(error) => panic!("the connection was not ended: {error}; received {} bytes", received.len()),
    }
}
