//! The replies of one line. The dialects say the same in different words, and `glockd` also names
//! the lock. Only appends bytes; the caller knows what became of the request.

use crate::wire::push_decimal;
use crate::wire::text::request::{TextDialect, TextMode};

/// A reply of one line. `glockd` repeats the name as it was understood: trimmed and folded,
/// otherwise byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextReply<'a> {
    /// To [`Acquire`](super::TextRequest::Acquire) and
    /// [`AcquireWaiting`](super::TextRequest::AcquireWaiting).
    Acquire {
        /// The mode that was asked for.
        mode: TextMode,
        /// The lock.
        name: &'a [u8],
        /// The number of sessions that hold the lock now. `None` if it was refused, or if the wait
        /// timed out.
        holders: Option<usize>,
    },
    /// To [`Release`](super::TextRequest::Release).
    Release {
        /// The mode of the lock that was to be released.
        mode: TextMode,
        /// The lock.
        name: &'a [u8],
        /// Whether there was a lock to release.
        released: bool,
    },
    /// To [`Inspect`](super::TextRequest::Inspect).
    Inspect {
        /// The mode that was asked for.
        mode: TextMode,
        /// The lock.
        name: &'a [u8],
        /// The number of sessions that hold the lock in this mode; 0 or 1 if it is exclusive.
        holders: usize,
    },
    /// To a line longer than the limit.
    LineTooLong,
    /// To `t`: the fencing token, or `None` if the session does not hold the lock.
    Token(Option<u64>),
    /// To `me`.
    Me {
        /// The peer's address.
        address: &'a [u8],
        /// The registered name, or the address again.
        name: &'a [u8],
    },
    /// To `iam`.
    Ok,
    /// To `iam` with a name longer than the limit. The original has no limit, so the wording is
    /// ours.
    NameTooLong,
    /// To a command that the server was told not to answer.
    Disabled,
    /// To `gw` and `sgw` without a readable time limit, with everything after the command. The
    /// original has no such command, so the wording is ours.
    InvalidWait(&'a [u8]),
}

/// What stands between the count and the name, if the dialect names the lock: in `lockd`, and in
/// `glockd` for an exclusive and for a shared lock.
macro_rules! words {
    ($lockd:literal, $glockd:literal) => {
        &[concat!(" ", $lockd), concat!(" Lock ", $glockd, ": "), concat!(" Shared Lock ", $glockd, ": ")]
    };
}

impl TextReply<'_> {
    /// Appends the line, ended by `\r\n`.
    pub fn encode(&self, dialect: TextDialect, out: &mut Vec<u8>) {
        match *self {
            Self::Acquire { mode, name, holders: Some(holders) } => {
                push_outcome(out, dialect, mode, name, holders, words!("Got Lock", "Get Success"));
            }
            Self::Acquire { mode, name, holders: None } => {
                push_outcome(out, dialect, mode, name, 0, words!("Cannot Get Lock", "Get Failure"));
            }
            Self::Release { mode, name, released: true } => {
                push_outcome(out, dialect, mode, name, 1, words!("Released Lock", "Release Success"));
            }
            Self::Release { mode, name, released: false } => {
                push_outcome(out, dialect, mode, name, 0, words!("Cannot Release Lock", "Release Failure"));
            }
            Self::Inspect { mode, name, holders: 0 } => {
                push_outcome(out, dialect, mode, name, 0, words!("Not Locked", "Not Locked"));
            }
            Self::Inspect { mode, name, holders } => {
                push_outcome(out, dialect, mode, name, holders, words!("Locked", "Is Locked"));
            }
            Self::LineTooLong => push_line(out, &[b"0 Line Too Long"]),
            Self::Token(token) => {
                push_decimal(out, token.unwrap_or(0));
                push_line(out, &[]);
            }
            Self::Me { address, name } => push_line(out, &[b"1 ", address, b" ", name]),
            Self::Ok => push_line(out, &[b"1 ok"]),
            Self::NameTooLong => push_line(out, &[b"0 name too long"]),
            Self::Disabled => push_line(out, &[b"0 disabled"]),
            Self::InvalidWait(rest) => push_line(out, &[b"0 Invalid Wait: ", rest]),
        }
    }
}

/// Appends a line that says what became of a lock: a count, what the dialect says of it, and in
/// `glockd` the name.
fn push_outcome(
    out: &mut Vec<u8>,
    dialect: TextDialect,
    mode: TextMode,
    name: &[u8],
    count: usize,
    [lockd, exclusive, shared]: &[&str; 3],
) {
    // Most counts have one digit, and need no division.
    match b"0123456789".get(count) {
        Some(&digit) => out.push(digit),
        None => push_decimal(out, count),
    }
    let (words, name): (_, &[u8]) = match (dialect, mode) {
        (TextDialect::Lockd, _) => (lockd, &[]),
        (TextDialect::Glockd, TextMode::Exclusive) => (exclusive, name),
        (TextDialect::Glockd, TextMode::Shared) => (shared, name),
    };
    push_line(out, &[words.as_bytes(), name]);
}

fn push_line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use TextMode::{Exclusive, Shared};

    fn encoded(reply: TextReply<'_>, dialect: TextDialect) -> String {
        let mut out = Vec::new();
        reply.encode(dialect, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// What `lockd` and `glockd` say about a lock.
    #[test]
    fn every_reply_about_a_lock_is_the_originals() {
        let name = b"foo";
        let acquire = |mode, holders| TextReply::Acquire { mode, name, holders };
        let release = |mode, released| TextReply::Release { mode, name, released };
        let inspect = |mode, holders| TextReply::Inspect { mode, name, holders };
        let cases = [
            (acquire(Exclusive, Some(1)), "1 Got Lock", "1 Lock Get Success: foo"),
            (acquire(Exclusive, None), "0 Cannot Get Lock", "0 Lock Get Failure: foo"),
            (acquire(Shared, Some(12)), "12 Got Lock", "12 Shared Lock Get Success: foo"),
            (acquire(Shared, None), "0 Cannot Get Lock", "0 Shared Lock Get Failure: foo"),
            (release(Exclusive, true), "1 Released Lock", "1 Lock Release Success: foo"),
            (release(Exclusive, false), "0 Cannot Release Lock", "0 Lock Release Failure: foo"),
            (release(Shared, true), "1 Released Lock", "1 Shared Lock Release Success: foo"),
            (release(Shared, false), "0 Cannot Release Lock", "0 Shared Lock Release Failure: foo"),
            (inspect(Exclusive, 1), "1 Locked", "1 Lock Is Locked: foo"),
            (inspect(Exclusive, 0), "0 Not Locked", "0 Lock Not Locked: foo"),
            (inspect(Shared, 3), "3 Locked", "3 Shared Lock Is Locked: foo"),
            (inspect(Shared, 0), "0 Not Locked", "0 Shared Lock Not Locked: foo"),
            (TextReply::LineTooLong, "0 Line Too Long", "0 Line Too Long"),
        ];
        for (reply, lockd, glockd) in cases {
            assert_eq!(encoded(reply, TextDialect::Lockd), format!("{lockd}\r\n"));
            assert_eq!(encoded(reply, TextDialect::Glockd), format!("{glockd}\r\n"));
        }
        let nameless = TextReply::Acquire { mode: Exclusive, name: b"", holders: Some(1) };
        assert_eq!(encoded(nameless, TextDialect::Glockd), "1 Lock Get Success: \r\n");
    }

    #[test]
    fn every_other_reply_of_glockd_is_the_originals() {
        let cases = [
            (TextReply::Token(Some(9_007_199_254_740_991)), "9007199254740991\r\n"),
            (TextReply::Token(None), "0\r\n"),
            (TextReply::Me { address: b"127.0.0.1:57871", name: b"bob" }, "1 127.0.0.1:57871 bob\r\n"),
            (TextReply::Ok, "1 ok\r\n"),
            (TextReply::NameTooLong, "0 name too long\r\n"),
            (TextReply::Disabled, "0 disabled\r\n"),
            (TextReply::InvalidWait(b"-1 foo"), "0 Invalid Wait: -1 foo\r\n"),
        ];
        for (reply, line) in cases {
            assert_eq!(encoded(reply, TextDialect::Glockd), line);
        }
    }
}
