//! PostgreSQL's advisory locks, by simple queries. Its user is `postgres`, let in without a password.

use super::{Dialect, Exchange, Reply, Request, Want};

/// PostgreSQL's protocol.
pub(in super::super) struct Postgres;

/// Version 3.0 of the protocol.
const VERSION: u32 = 3 << 16;
const TRUE: &[u8] = b"D\0\0\0\x0b\0\x01\0\0\0\x01t";
const FALSE: &[u8] = b"D\0\0\0\x0b\0\x01\0\0\0\x01f";
/// What a function without a result returns.
const VOID: &[u8] = b"D\0\0\0\x0a\0\x01\0\0\0\0";

impl Dialect for Postgres {
    fn greeting(&self) -> Vec<u8> {
        with_length(&[&VERSION.to_be_bytes()[..], b"user\0postgres\0\0"].concat())
    }

    fn exchange(&self, want: &Want) -> Result<Exchange, &'static str> {
        let query =
            |text: String| [b"Q", with_length(&[text.as_bytes(), b"\0"].concat()).as_slice()].concat();
        let number = want.number;
        let acquire = match want.wait {
            true => Request::new(query(format!("SELECT pg_advisory_lock({number})")), VOID),
            false => {
                Request::new(query(format!("SELECT pg_try_advisory_lock({number})")), TRUE).or_refused(FALSE)
            }
        };
        Ok(Exchange {
            acquire,
            release: Request::new(query(format!("SELECT pg_advisory_unlock({number})")), TRUE),
        })
    }

    /// All messages up to the one that says it is ready for the next query; the verdict begins with the
    /// first row there is.
    fn reply<'a>(&self, input: &'a [u8]) -> Option<Reply<'a>> {
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
                return Some(Reply { len, verdict: row.unwrap_or_default() });
            }
        }
    }
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], body].concat()
}
