//! PostgreSQL's advisory locks, by simple queries, as the user `postgres` without a password.

use super::request::{CheckedRequest, LockRequests, LockSpec, ParsedReply};

/// Version 3.0 of the protocol.
const VERSION: u32 = 3 << 16;
const TRUE: &[u8] = b"D\0\0\0\x0b\0\x01\0\0\0\x01t";
const FALSE: &[u8] = b"D\0\0\0\x0b\0\x01\0\0\0\x01f";
/// The row of a function that returns nothing.
const VOID: &[u8] = b"D\0\0\0\x0a\0\x01\0\0\0\0";

pub(super) fn hello() -> Vec<u8> {
    with_length(&[&VERSION.to_be_bytes()[..], b"user\0postgres\0\0"].concat())
}

pub(super) fn requests(spec: &LockSpec) -> LockRequests {
    let query = |text: String| [b"Q", with_length(&[text.as_bytes(), b"\0"].concat()).as_slice()].concat();
    let number = spec.number;
    let acquire = if spec.wait {
        CheckedRequest::new(query(format!("SELECT pg_advisory_lock({number})")), VOID)
    } else {
        CheckedRequest::new(query(format!("SELECT pg_try_advisory_lock({number})")), TRUE).or_refused(FALSE)
    };
    let release = CheckedRequest::new(query(format!("SELECT pg_advisory_unlock({number})")), TRUE);
    LockRequests { acquire, release }
}

/// All messages up to `ReadyForQuery`. The outcome begins with the first row or error.
pub(super) fn reply(input: &[u8]) -> Option<ParsedReply<'_>> {
    let (mut len, mut row) = (0, None);
    loop {
        let (&kind, rest) = input.get(len..)?.split_first()?;
        let message_len = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok()?;
        let end = len + 1 + message_len;
        let message = input.get(len..end)?;
        if matches!(kind, b'D' | b'E') {
            row = row.or(Some(message));
        }
        len = end;
        if kind == b'Z' {
            return Some(ParsedReply { len, outcome: row.unwrap_or_default() });
        }
    }
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], body].concat()
}
