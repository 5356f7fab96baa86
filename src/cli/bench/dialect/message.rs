//! The `message` protocol: a length, and JSON.

use super::{Dialect, Exchange, Reply, Request, Want};

/// The `message` protocol.
pub(in super::super) struct Message;

impl Dialect for Message {
    fn exchange(&self, want: &Want) -> Result<Exchange, &'static str> {
        let (id, name) = (want.number, want.name());
        let limit = if want.wait { "" } else { r#","timeLimit":0"# };
        let acquire =
            format!(r#"{{"command":"lock","parameters":{{"lockName":"{name}"{limit}}},"id":{id}}}"#);
        let release = format!(r#"{{"command":"unlock","parameters":{{"lockName":"{name}"}},"id":{id}}}"#);
        Ok(Exchange {
            acquire: Request::new(
                frame(&acquire),
                format!(r#"{{"id":{id},"result":{{"status":"ok","token":"#),
            )
            .or_refused(format!(r#"{{"id":{id},"result":{{"status":"timeout"}}}}"#)),
            release: Request::new(frame(&release), format!(r#"{{"id":{id},"result":{{"status":"ok"}}}}"#)),
        })
    }

    fn reply<'a>(&self, input: &'a [u8]) -> Option<Reply<'a>> {
        let (head, body) = input.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes(*head)).ok()?;
        Some(Reply { len: head.len() + len, verdict: body.get(..len)? })
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut framed = Vec::new();
    lockd::wire::frame::encode(&mut framed, |body| body.extend_from_slice(text.as_bytes()));
    framed
}
