//! The thread of one connection: reads requests, one after the other, and sends the responses. Both
//! a request and a response have a time limit as a whole, so that a client that sends or reads
//! slowly does not keep its place.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::cli::http::connections::HttpConnection;
use crate::cli::http::request::{HEAD_MAX, Parsed, parse};
use crate::cli::http::response::{HttpResponse, HttpStatus};
use crate::cli::http::routes;
use crate::cli::http::state::HttpState;

/// From the end of one response, or from the start of the connection, until the next request has
/// arrived. A page that is open asks more often.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Until the client has taken a response.
const RESPONSE_LIMIT: Duration = Duration::from_secs(5);
/// How long, and how many bytes, are read from a client after the last response, see [`end`].
const LINGER_LIMIT: Duration = Duration::from_millis(500);
const LINGER_MAX: usize = 256 << 10;

/// Serves the connection until it ends.
///
/// # Errors
/// If the client has gone or is too slow.
pub(super) fn serve(connection: &HttpConnection, state: &HttpState) -> io::Result<()> {
    let stream = &connection.stream;
    stream.set_nodelay(true)?;
    let here = stream.local_addr()?.ip();
    let mut input = Vec::new();
    loop {
        match next_request(stream, &mut input)? {
            Parsed::Request(request, length) => {
                connection.end_wait();
                input.drain(..length);
                let response = routes::respond(state, here, &request);
                let close = !request.keep_alive;
                connection.begin_wait();
                send(stream, &response.encode(close, request.is_head()))?;
                if close {
                    return end(stream);
                }
            }
            Parsed::Incomplete => return Ok(()),
            Parsed::Refused(response) => {
                send(stream, &response.encode(true, false))?;
                return end(stream);
            }
        }
    }
}

/// Waits for a request; `Incomplete` if the client has ended the connection, or has sent nothing in
/// time.
fn next_request(stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<Parsed> {
    let deadline = Instant::now() + REQUEST_LIMIT;
    loop {
        match parse(input) {
            Parsed::Incomplete => {}
            parsed => return Ok(parsed),
        }
        let mut some = [0; 2048];
        match receive(stream, &mut some, deadline) {
            Ok(0) => return Ok(Parsed::Incomplete),
            Ok(read) => input.extend_from_slice(&some[..read]),
            Err(error) if is_timeout(&error) && !input.is_empty() => {
                return Ok(Parsed::Refused(HttpResponse::text(
                    HttpStatus::Timeout,
                    "the request has not arrived in time",
                )));
            }
            Err(error) if is_timeout(&error) => return Ok(Parsed::Incomplete),
            Err(error) => return Err(error),
        }
        debug_assert!(input.len() <= HEAD_MAX + some.len());
    }
}

fn receive(mut stream: &TcpStream, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn send(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + RESPONSE_LIMIT;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends the connection such that the client gets the last response. If bytes of the client were
/// left unread at the close, the kernel would send a reset, and a reset makes the client lose what
/// it has not read yet. So this reads, within limits, until the client has closed its end.
fn end(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + LINGER_LIMIT;
    let (mut some, mut discarded) = ([0; 2048], 0);
    while discarded < LINGER_MAX {
        match receive(stream, &mut some, deadline)? {
            0 => break,
            read => discarded += read,
        }
    }
    Ok(())
}

/// # Errors
/// `TimedOut` if the deadline has passed.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Whether a time limit has ended a wait: [`time_left`], or the socket's own, which is `WouldBlock`
/// on Linux.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
