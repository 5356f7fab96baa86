//! The results of the lock commands, and the functions that write replies. Both sides use the types:
//! the server writes them, a client reads them back.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::broker::LockName;
use crate::os::Keepalive;
use crate::wire::message::requests::{Malformed, OldUnlockRequest};
use crate::wire::message::values::{KeepaliveFigures, LOCK_NAME, to_text};
use crate::wire::push_decimal;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// It was done.
    Ok,
    /// The time limit ended the wait.
    Timeout,
    /// The parameters are not what the command needs; `reason` says why.
    Invalid,
    /// The wait would have closed a circle of sessions that wait for each other; `circle` names them.
    Deadlock,
    /// A limit, or the server is stopping; `reason` says which.
    Refused,
    /// The connection neither holds the lock nor waits for it.
    NotFound,
    /// There is no such command.
    Unknown,
    /// The wait was given up by a later request of the same connection.
    Cancelled,
}

/// Why a request was refused, where that is the state of the server, and neither a mistake nor a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The server grants nothing yet, since holders of its last run may not have found out that it has ended.
    Grace,
    /// The server is stopping, or has failed, and ends the connection.
    Stopping,
    /// A cause that this version does not know.
    #[serde(other)]
    Other,
}

/// The result of `lock`, `unlock`, `convert` and `identify`. Its `status` and `reason` can be read
/// from the result of any lock command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockResult {
    /// What became of the request.
    pub status: Status,
    /// The fencing token of the grant, below 2^53.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Whether the last exclusive holder vanished without releasing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub orphaned: bool,
    /// Whether the connection held the lock before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already: bool,
    /// How many hold a shared lock now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<usize>,
    /// Why the request was invalid or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What state of the server the refusal comes from, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The sessions of a deadlock, each waiting for the next, the last for the first. The first ones of many; none
    /// if the server does not let clients know of each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circle: Option<Vec<String>>,
    /// How many sessions there are in the circle, where `circle` does not have all of them.
    #[serde(default, rename = "circleSize", skip_serializing_if = "Option::is_none")]
    pub circle_size: Option<usize>,
}

impl LockResult {
    /// A status and nothing else.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            status,
            token: None,
            orphaned: false,
            already: false,
            holders: None,
            reason: None,
            cause: None,
            circle: None,
            circle_size: None,
        }
    }

    /// A grant with its fencing token.
    #[must_use]
    pub fn granted(token: u64) -> Self {
        Self { token: Some(token), ..Self::new(Status::Ok) }
    }

    /// A refusal, because of a limit or because the server is stopping.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(Status::Refused) }
    }

    /// A refusal of a server that is stopping.
    #[must_use]
    pub fn stopping() -> Self {
        Self { cause: Some(Cause::Stopping), ..Self::refused("the server is stopping") }
    }
}

impl From<Malformed> for LockResult {
    fn from(malformed: Malformed) -> Self {
        Self { reason: Some(malformed.to_string()), ..Self::new(Status::Invalid) }
    }
}

/// For `skip_serializing_if`, which hands a reference over.
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

/// The result of `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloResult {
    /// `Ok`, unless the request was invalid.
    pub status: Status,
    /// `lockd`.
    pub server: String,
    /// The version of the server.
    pub version: String,
    /// What the server can do beyond the first version of the protocol.
    pub features: Vec<String>,
    /// How the server finds out that a client's host is gone, so that the client can find out first.
    #[serde(with = "KeepaliveFigures")]
    pub keepalive: Keepalive,
}

/// Appends `{"id":…,"result":…}`.
///
/// A result that cannot be written as JSON (possible only for types other than this module's, say a
/// map with keys that are no strings) becomes `{"id":…,"error":…}`, so that its client does not wait
/// for ever.
pub fn encode_result(out: &mut Vec<u8>, id: &RawValue, result: &(impl Serialize + ?Sized)) {
    let start = out.len();
    push_id(out, id);
    out.extend_from_slice(b",\"result\":");
    if serde_json::to_writer(&mut *out, result).is_err() {
        out.truncate(start);
        push_id(out, id);
        out.extend_from_slice(b",\"error\":\"the result cannot be written as JSON\"");
    }
    out.push(b'}');
}

fn push_id(out: &mut Vec<u8>, id: &RawValue) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id.get().as_bytes());
}

/// Appends the reply to a `lock` that was granted and has nothing more to tell than its token: what
/// [`encode_result`] makes of [`LockResult::granted`], only faster.
pub fn encode_granted(out: &mut Vec<u8>, id: &RawValue, token: u64) {
    push_id(out, id);
    out.extend_from_slice(b",\"result\":{\"status\":\"ok\",\"token\":");
    push_decimal(out, token);
    out.extend_from_slice(b"}}");
}

/// Appends the reply to a command that there is no handler for.
pub fn encode_unknown(out: &mut Vec<u8>, id: &RawValue, command: &str) {
    #[derive(Serialize)]
    struct Unknown<'a> {
        status: Status,
        command: &'a str,
    }
    encode_result(out, id, &Unknown { status: Status::Unknown, command });
}

/// Appends the reply to `ping`: its parameters, byte for byte.
pub fn encode_pong(out: &mut Vec<u8>, id: &RawValue, parameters: &RawValue) {
    #[derive(Serialize)]
    struct Pong<'a> {
        status: Status,
        parameters: &'a RawValue,
    }
    encode_result(out, id, &Pong { status: Status::Ok, parameters });
}

/// Appends `{"error":…}`: the answer to what cannot be read as a message.
pub fn encode_error(out: &mut Vec<u8>, error: &str) {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    push_json(out, &Error { error });
}

/// Appends strings, or structs and maps of them: nothing that could fail to become JSON.
pub(super) fn push_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let _infallible = serde_json::to_writer(out, value);
}

/// The reply to the old form of `unlock`, which has no id. Its client looks at `result`; the keys
/// come in the original's order, and a name that came as a number goes back as one. In a set (ours, so for people only) names that are not UTF-8 are
/// written as text alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldUnlockReply<'a> {
    /// Released, or taken out of the queue.
    Ok(&'a OldUnlockRequest),
    /// The connection neither held a lock nor waited.
    NotFound(&'a OldUnlockRequest),
    /// There was no name.
    Invalid,
    /// The server asks for a secret first.
    Refused,
}

impl OldUnlockReply<'_> {
    /// Appends the reply.
    pub fn encode(self, out: &mut Vec<u8>) {
        push_json(out, &self);
    }
}

impl Serialize for OldUnlockReply<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (result, request) = match self {
            Self::Ok(request) => (Status::Ok, Some(request)),
            Self::NotFound(request) => (Status::NotFound, Some(request)),
            Self::Invalid => (Status::Invalid, None),
            Self::Refused => (Status::Refused, None),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("attempted", "unlock")?;
        map.serialize_entry("result", &result)?;
        match request.map(|request| (request.unlock.names.as_slice(), request.unlock.set, request.is_number))
        {
            Some(([name], false, true)) => serialize_number(&mut map, name)?,
            Some(([name], false, false)) => serialize_name(&mut map, name)?,
            Some((names, ..)) => {
                let texts: Vec<_> = names.iter().map(|name| to_text(name).0).collect();
                map.serialize_entry("lockNames", &texts)?;
            }
            None => {}
        }
        map.end()
    }
}

/// Writes a name for people, with its exact bytes where that lost any.
fn serialize_name<M: SerializeMap>(map: &mut M, name: &LockName) -> Result<(), M::Error> {
    let (text, hex) = to_text(name);
    map.serialize_entry(LOCK_NAME.text, &text)?;
    hex.map_or(Ok(()), |hex| map.serialize_entry(LOCK_NAME.hex, &hex))
}

/// Writes a name that is the text of a number as that number.
fn serialize_number<M: SerializeMap>(map: &mut M, name: &LockName) -> Result<(), M::Error> {
    match str::from_utf8(name.as_bytes()).map(serde_json::from_str::<&RawValue>) {
        Ok(Ok(number)) => map.serialize_entry(LOCK_NAME.text, number),
        _ => serialize_name(map, name),
    }
}

#[cfg(test)]
mod tests;
