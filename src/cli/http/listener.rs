//! Accepts connections from clients on the access list, and starts a thread for each.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::cli::http::connection;
use crate::cli::http::response::{HttpResponse, HttpStatus};
use crate::cli::http::state::{CONNECTIONS_MAX, HttpState};

/// How long to wait after nothing could be accepted.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Accepts for ever.
pub(super) fn run(listener: &TcpListener, state: &Arc<HttpState>) {
    loop {
        match accept(listener, state) {
            Ok(true) => {}
            Ok(false) => {
                state.refused.fetch_add(1, Relaxed);
            }
            // The client has closed the connection already; or descriptors or threads have run out,
            // which lasts.
            Err(error) => {
                log::debug!("http: {error}");
                std::thread::sleep(RETRY_AFTER);
            }
        }
    }
}

/// Accepts the next connection. False if it was turned away.
fn accept(listener: &TcpListener, state: &Arc<HttpState>) -> io::Result<bool> {
    let (stream, peer) = listener.accept()?;
    if !state.rules().config.allows(peer.ip()) {
        log::debug!("http: {peer} is not on the access list");
        return Ok(false);
    }
    let connection = match state.connections.admit(stream) {
        Ok(connection) => connection,
        Err(stream) => {
            turn_away(stream);
            log::debug!("http: refused {peer}: {CONNECTIONS_MAX} connections are being answered");
            return Ok(false);
        }
    };
    let state = state.clone();
    spawn("lockd-http-conn", move || {
        let served = connection::serve(&connection, &state);
        // Makes room for another connection before anything is logged.
        drop(connection);
        if let Err(error) = served {
            log::debug!("http: {peer}: {error}");
        }
    })?;
    Ok(true)
}

/// Sends the reason, as far as the socket takes it at once.
fn turn_away(mut stream: TcpStream) {
    let why = HttpResponse::text(HttpStatus::Unavailable, "too many connections");
    // If it cannot be sent at once, the client sees only that the connection ends.
    let _ =
        stream.set_nonblocking(true).and_then(|()| io::Write::write(&mut stream, &why.encode(true, false)));
}

/// Starts a thread. Its stack is small: calls here are neither deep nor recursive.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    const STACK_BYTES: usize = 512 << 10;
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work).map(drop)
}
