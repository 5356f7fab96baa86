//! The frames of the `message` protocol: a big-endian length of four bytes, then that many bytes.
//! Knows where a message ends, and nothing about its content.

/// The number of bytes of a frame before its body.
const HEADER: usize = 4;

/// What [`decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The body of a complete message.
    Body(&'a [u8]),
    /// More bytes are needed.
    Incomplete,
    /// The header announces more bytes than are allowed. The bytes after it may not be a body at
    /// all, so the stream cannot be read any further.
    TooLong {
        /// The announced length.
        announced: u32,
    },
}

/// Reads the frame that `input` begins with, and returns the number of bytes consumed.
///
/// A body may have up to `message_max` bytes. A longer one is reported as soon as its header is
/// complete. The caller keeps the bytes that were not consumed. Its buffer should grow with the
/// bytes that arrive, never by the length that a header announces.
#[must_use]
pub fn decode(input: &[u8], message_max: usize) -> (usize, Frame<'_>) {
    let Some((header, rest)) = input.split_first_chunk::<HEADER>() else { return (0, Frame::Incomplete) };
    let announced = u32::from_be_bytes(*header);
    let Some(length) = usize::try_from(announced).ok().filter(|&length| length <= message_max) else {
        return (HEADER, Frame::TooLong { announced });
    };
    match rest.get(..length) {
        Some(body) => (HEADER + length, Frame::Body(body)),
        None => (0, Frame::Incomplete),
    }
}

/// Appends a frame whose body is what `write` appends.
///
/// `write` must only append. If the body is too long for a header (4 GiB or more), nothing is
/// appended, so that the stream stays readable.
pub fn encode(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    let length = out.len().checked_sub(start + HEADER).and_then(|length| u32::try_from(length).ok());
    match (length, out.get_mut(start..start + HEADER)) {
        (Some(length), Some(header)) => header.copy_from_slice(&length.to_be_bytes()),
        _ => out.truncate(start),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(bodies: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            encode(&mut out, |out| out.extend_from_slice(body));
        }
        out
    }

    /// The bodies that a connection reads from a stream that arrives in these pieces.
    fn bodies_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let (mut buffer, mut bodies) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let (consumed, Frame::Body(body)) = decode(&buffer, 1000) {
                bodies.push(body.to_vec());
                buffer.drain(..consumed);
            }
        }
        assert!(buffer.is_empty(), "the stream ends with a whole frame");
        bodies
    }

    #[test]
    fn the_length_is_big_endian() {
        assert_eq!(framed(&[b"{}"]), b"\0\0\0\x02{}");
        assert_eq!(framed(&[&[b'x'; 258]])[..4], [0, 0, 1, 2]);
    }

    #[test]
    fn a_stream_may_be_split_anywhere() {
        let bodies: [&[u8]; 4] = [b"{}", b"", &[7; 300], b"\0\0\0\x01"];
        let stream = framed(&bodies);
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(bodies_of([left, right]), bodies, "split at {at}");
        }
        assert_eq!(bodies_of(stream.chunks(1)), bodies);
    }

    #[test]
    fn the_limit_is_for_the_body_and_is_checked_once_the_header_is_complete() {
        assert_eq!(decode(b"\0\0\0\x03abc", 3), (7, Frame::Body(b"abc")));
        assert_eq!(decode(b"\0\0\0\x04", 3), (4, Frame::TooLong { announced: 4 }));
        assert_eq!(decode(b"GET / HTTP", 1 << 20), (4, Frame::TooLong { announced: 0x4745_5420 }));
        assert_eq!(decode(b"\xff\xff\xff", 3), (0, Frame::Incomplete));
    }

    #[test]
    fn a_writer_that_removes_bytes_leaves_no_partial_frame() {
        let mut out = framed(&[b"first"]);
        encode(&mut out, |out| out.truncate(10));
        assert_eq!(out, framed(&[b"first"]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_consumed_or_incomplete(input: Vec<u8>, message_max in 0_usize..1 << 33) {
            let (consumed, frame) = decode(&input, message_max);
            prop_assert!(consumed <= input.len());
            prop_assert_eq!(consumed == 0, frame == Frame::Incomplete);
        }

        #[test]
        fn an_encoded_body_is_decoded_unchanged(body: Vec<u8>) {
            let stream = framed(&[&body, b"next"]);
            prop_assert_eq!(decode(&stream, body.len()), (4 + body.len(), Frame::Body(&body)));
        }
    }
}
