//! The thread of one connection: reads requests, one after the other, and sends what they come to. Each has
//! so much time to arrive, and its response so much to be taken, however slowly bytes come and go.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::cli::http::connections::Connection;
use crate::cli::http::request::{HEAD_MAX, Parsed, parse};
use crate::cli::http::response::{Response, Status};
use crate::cli::http::{Shared, routes};

/// From the end of one response, or the beginning of the connection, until the next request is there. A page
/// that is open asks more often.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Until a response has been taken.
const RESPONSE_LIMIT: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, a client that is refused is listened to, so that what it still sends does
/// not cost it the response.
const LINGER_LIMIT: Duration = Duration::from_millis(500);
const LINGER_MAX: usize = 256 << 10;

/// Serves the connection until it ends.
///
/// # Errors
/// If the client is gone or too slow.
pub(super) fn serve(connection: &Connection, shared: &Shared) -> io::Result<()> {
    let stream = &connection.stream;
    stream.set_nodelay(true)?;
    let here = stream.local_addr()?.ip();
    let mut input = Vec::new();
    loop {
        match next_request(stream, &mut input)? {
            Parsed::Request(request, length) => {
                connection.end_wait();
                input.drain(..length);
                let response = routes::respond(shared, here, &request);
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

/// Waits for a request; `Incomplete` if there is none to come.
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
            Err(error) if is_too_late(&error) && !input.is_empty() => {
                return Ok(Parsed::Refused(Response::text(
                    Status::Timeout,
                    "the request has not come in time",
                )));
            }
            Err(error) if is_too_late(&error) => return Ok(Parsed::Incomplete),
            Err(error) => return Err(error),
        }
        debug_assert!(input.len() <= HEAD_MAX + some.len());
    }
}

fn receive(mut stream: &TcpStream, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn send(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + RESPONSE_LIMIT;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends the connection such that the client gets what was sent: bytes of its own that nobody reads would
/// have the kernel answer them with a reset, which overtakes it.
fn end(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + LINGER_LIMIT;
    let (mut some, mut heard) = ([0; 2048], 0);
    while heard < LINGER_MAX {
        match receive(stream, &mut some, deadline)? {
            0 => break,
            read => heard += read,
        }
    }
    Ok(())
}

/// The time that is left.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Whether it is a limit that has ended a wait: by the clock, or by the socket's own.
fn is_too_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
