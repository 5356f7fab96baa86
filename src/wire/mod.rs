//! The codecs: pure functions between bytes and requests or replies, one module for each protocol.
//!
//! They know the broker's names and modes, and nothing about sockets, clocks, threads or sessions.
//! A decoder is given the bytes that have arrived and says how many of them it has consumed. An
//! encoder appends to a buffer. No input makes a codec panic, recurse as deep as the input is
//! nested, or allocate memory for bytes that were only announced.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

#[cfg(test)]
pub(crate) mod changed_leaves;
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

/// Appends a name with each line break replaced by a space, because the break would end the line.
/// Names from the text protocols contain none, but names from other protocols may.
fn push_in_line(out: &mut Vec<u8>, name: &[u8]) {
    out.extend(name.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
}
