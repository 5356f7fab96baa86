//! Accepting connections of those who may come in.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::cli::http::response::{Response, Status};
use crate::cli::http::{Shared, connection, spawn};

/// Connections at once. Each has a thread and a descriptor, which the server's own must not lack.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// How long to let go when nothing can be accepted.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Accepts for ever.
pub(super) fn run(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match receive(listener, shared) {
            Ok(true) => {}
            Ok(false) => {
                shared.refused.fetch_add(1, Relaxed);
            }
            // The client has gone again; or there are no descriptors or threads, which takes a while.
            Err(error) => {
                log::debug!("http: {error}");
                std::thread::sleep(EXHAUSTED);
            }
        }
    }
}

/// Takes the next connection, and says whether it was let in.
fn receive(listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<bool> {
    let (stream, peer) = listener.accept()?;
    if !shared.rules().config.allows(peer.ip()) {
        log::debug!("http: {peer} is not on the access list");
        return Ok(false);
    }
    let connection = match shared.connections.let_in(stream) {
        Ok(connection) => connection,
        Err(stream) => {
            turn_away(stream);
            log::debug!("http: refused {peer}: {CONNECTIONS_MAX} connections are being answered");
            return Ok(false);
        }
    };
    let shared = shared.clone();
    spawn("lockd-http-conn", move || {
        let served = connection::serve(&connection, &shared);
        // There is room for others before anything is said about it.
        drop(connection);
        if let Err(error) = served {
            log::debug!("http: {peer}: {error}");
        }
    })?;
    Ok(true)
}

/// Says why, as far as the socket takes it at once.
fn turn_away(mut stream: TcpStream) {
    let why = Response::text(Status::Unavailable, "too many connections");
    // Nobody is owed more than the attempt.
    let _ =
        stream.set_nonblocking(true).and_then(|()| io::Write::write(&mut stream, &why.encode(true, false)));
}
