//! The `message` protocol: a length, and JSON.

use super::request::{CheckedRequest, LockRequests, LockSpec, ParsedReply};

pub(super) fn requests(spec: &LockSpec) -> LockRequests {
    let (id, name) = (spec.number, spec.name());
    let limit = if spec.wait { "" } else { r#","timeLimit":0"# };
    let acquire = format!(r#"{{"command":"lock","parameters":{{"lockName":"{name}"{limit}}},"id":{id}}}"#);
    let release = format!(r#"{{"command":"unlock","parameters":{{"lockName":"{name}"}},"id":{id}}}"#);
    let granted = format!(r#"{{"id":{id},"result":{{"status":"ok","token":"#);
    LockRequests {
        acquire: CheckedRequest::new(frame(&acquire), granted)
            .or_refused(format!(r#"{{"id":{id},"result":{{"status":"timeout"}}}}"#)),
        release: CheckedRequest::new(frame(&release), format!(r#"{{"id":{id},"result":{{"status":"ok"}}}}"#)),
    }
}

/// Asks for a session that resumes.
pub(super) fn resumable_hello() -> Vec<u8> {
    frame(r#"{"command":"hello","parameters":{"resumable":true},"id":0}"#)
}

/// Whether the server offers that: it needs a state directory.
pub(super) fn is_resumable(hello_reply: &[u8]) -> bool {
    hello_reply.windows(RESUME.len()).any(|part| part == RESUME)
}

const RESUME: &[u8] = br#""resume":{"#;

pub(super) fn reply(input: &[u8]) -> Option<ParsedReply<'_>> {
    let (head, body) = input.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*head)).ok()?;
    Some(ParsedReply { len: head.len() + len, outcome: body.get(..len)? })
}

fn frame(text: &str) -> Vec<u8> {
    let mut framed = Vec::new();
    lockd::wire::frame::encode(&mut framed, |body| body.extend_from_slice(text.as_bytes()));
    framed
}
