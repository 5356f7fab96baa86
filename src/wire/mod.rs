//! The codecs: pure functions between bytes and requests or replies, one module for each protocol.
//!
//! They know the broker's names and modes, and nothing of sockets, clocks, threads or of who asks.
//! A decoder is given what has arrived so far and says how much of it is done with; an encoder
//! appends to a buffer. Nothing that arrives makes one panic, recurse with its depth, or allocate for
//! what was only announced.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod first_bytes;
pub mod frame;
pub mod message;
mod port;
pub mod text;
pub(crate) mod websocket;

pub use port::parse_port;

/// Appends `number` in decimal.
fn push_decimal(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a name where a line break in it would pass for the end of a line: each becomes a space. Names
/// from the text protocols have none, but others may.
fn push_in_line(out: &mut Vec<u8>, name: &[u8]) {
    out.extend(name.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
}
