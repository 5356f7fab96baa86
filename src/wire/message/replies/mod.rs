//! The results of the lock commands, and the functions that write replies. Both sides use the
//! types: the server writes them, a client reads them.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::os::Keepalive;
use crate::wire::message::requests::{LockNames, Malformed, OldUnlockRequest};
use crate::wire::message::resume_grant::ResumeGrant;
use crate::wire::message::values::{KeepaliveSeconds, LOCK_NAME, is_false, to_text};
use crate::wire::push_decimal;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// It was done.
    Ok,
    /// The time limit ended the wait.
    Timeout,
    /// The parameters do not suit the command; `reason` says why.
    Invalid,
    /// The wait would have closed a cycle of sessions that wait for each other; `circle` lists
    /// them.
    Deadlock,
    /// A limit was reached, or the server grants nothing now; `reason` says which.
    Refused,
    /// The connection neither holds the lock nor waits for it.
    NotFound,
    /// There is no such command.
    Unknown,
    /// A later request of the same connection cancelled the wait.
    Cancelled,
    /// The session that the client wanted to resume is over; `reason` says why.
    Ended,
}

impl Status {
    const fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Deadlock => "deadlock",
            Self::Refused => "refused",
            Self::NotFound => "notFound",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
            Self::Ended => "ended",
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

/// The state of the server because of which a request was refused. A refusal because of a limit has
/// no cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The grace: the server grants nothing yet, because holders of its previous run may not have
    /// noticed that it has ended.
    Grace,
    /// The server is stopping or has failed, and ends the connection.
    Stopping,
    /// The server is a standby of a cluster, and ends the connection; `active` is the server to ask,
    /// if that is known.
    Standby,
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
    /// The fencing token of the grant: above all earlier ones of the same name, below 2^53.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Whether the last exclusive holder vanished without releasing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub orphaned: bool,
    /// Whether the connection held the lock before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already: bool,
    /// The number of sessions that hold a shared or limited lock now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<usize>,
    /// Why the request was invalid or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The state of the server because of which the request was refused, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// With the cause `Standby`: where clients reach the active server of the cluster, if the standby
    /// knows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// The cycle of a deadlock: each session waits for the next, and the last for the first. A long
    /// cycle is cut off. `None` if the server does not tell clients about each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circle: Option<Vec<String>>,
    /// The number of sessions in the cycle, if `circle` does not list all of them.
    #[serde(default, rename = "circleSize", skip_serializing_if = "Option::is_none")]
    pub circle_size: Option<usize>,
}

impl LockResult {
    /// A result with a status only.
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
            active: None,
            circle: None,
            circle_size: None,
        }
    }

    /// A grant with its fencing token.
    #[must_use]
    pub fn granted(token: u64) -> Self {
        Self { token: Some(token), ..Self::new(Status::Ok) }
    }

    /// A refusal without a cause.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(Status::Refused) }
    }

    /// The refusal of a server that is stopping.
    #[must_use]
    pub fn stopping() -> Self {
        Self { cause: Some(Cause::Stopping), ..Self::refused("the server is stopping") }
    }

    /// The refusal of a standby of this cluster. `active` is `HOST:PORT` of the active server, if that
    /// is known.
    #[must_use]
    pub fn standby(cluster: &str, active: Option<&str>) -> Self {
        let mut reason = format!("this server is a standby of the cluster {cluster}");
        if let Some(active) = active {
            reason.push_str("; the active server is ");
            reason.push_str(active);
        }
        let active = active.map(str::to_owned);
        Self { cause: Some(Cause::Standby), active, ..Self::refused(reason) }
    }
}

impl From<Malformed> for LockResult {
    fn from(malformed: Malformed) -> Self {
        Self { reason: Some(malformed.to_string()), ..Self::new(Status::Invalid) }
    }
}

/// The result of `hello`, and of a `resume` that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloResult {
    /// `Ok`, unless the request was invalid.
    pub status: Status,
    /// `lockd`.
    pub server: String,
    /// The server's version.
    pub version: String,
    /// What the server can do beyond the first version of the protocol.
    pub features: Vec<String>,
    /// How the server detects that a client's host is gone. The client needs these times to notice
    /// a lost connection before the server gives its locks away.
    #[serde(with = "KeepaliveSeconds")]
    pub keepalive: Keepalive,
    /// With what the client can resume its session, if it asked for that and the server offers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumeGrant>,
}

/// What a server is in its cluster, in the result of `stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMembership {
    /// The name of the cluster.
    pub name: String,
    /// The number of the server's run as the active one.
    pub epoch: u64,
    /// Always `Active` so far: a standby does not answer `stats`.
    pub role: ClusterRole,
}

/// What one of several servers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterRole {
    /// The one that has the locks.
    Active,
    /// A role that this version does not know.
    #[serde(other)]
    Other,
}

/// Appends `{"id":…,"result":…}`.
///
/// If the result cannot be written as JSON, `{"id":…,"error":…}` is written instead, so that its
/// client does not wait forever. This module's types can always be written; a map with keys that
/// are not strings cannot.
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

/// Appends the reply to a granted `lock` that has only a token: the same bytes as [`encode_result`]
/// writes for [`LockResult::granted`], but faster.
pub fn encode_granted(out: &mut Vec<u8>, id: &RawValue, token: u64) {
    push_id(out, id);
    out.extend_from_slice(b",\"result\":{\"status\":\"ok\",\"token\":");
    push_decimal(out, token);
    out.extend_from_slice(b"}}");
}

/// Appends a result that has only a status: the same bytes as [`encode_result`] writes for
/// [`LockResult::new`], but faster.
pub fn encode_status(out: &mut Vec<u8>, id: &RawValue, status: Status) {
    push_id(out, id);
    out.extend_from_slice(b",\"result\":{\"status\":\"");
    out.extend_from_slice(status.text().as_bytes());
    out.extend_from_slice(b"\"}}");
}

/// Appends the reply to a command without a handler.
pub fn encode_unknown(out: &mut Vec<u8>, id: &RawValue, command: &str) {
    push_id(out, id);
    out.extend_from_slice(b",\"result\":{\"status\":\"unknown\",\"command\":");
    push_json(out, command);
    out.extend_from_slice(b"}}");
}

/// Appends the reply to `ping`: its parameters, byte for byte.
pub fn encode_pong(out: &mut Vec<u8>, id: &RawValue, parameters: &RawValue) {
    push_id(out, id);
    out.extend_from_slice(b",\"result\":{\"status\":\"ok\",\"parameters\":");
    out.extend_from_slice(parameters.get().as_bytes());
    out.extend_from_slice(b"}}");
}

/// Appends `{"error":…}`: the reply to a body that is not a message.
pub fn encode_error(out: &mut Vec<u8>, error: &str) {
    out.extend_from_slice(b"{\"error\":");
    push_json(out, error);
    out.push(b'}');
}

/// Appends a value that can always be written as JSON: strings and numbers, or structs and maps of
/// them.
pub(super) fn push_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let _infallible = serde_json::to_writer(out, value);
}

/// The reply to the old form of `unlock`, which has no id. Its client looks at `result`. The keys
/// are in the original's order, and a name that was written as a number is repeated as a number. A
/// set is our extension, for people to read; its names that are not UTF-8 are written as text only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldUnlockReply<'a> {
    /// The lock was released, or the wait for it was cancelled.
    Ok(&'a OldUnlockRequest),
    /// The connection neither held a lock nor waited.
    NotFound(&'a OldUnlockRequest),
    /// There was no name.
    Invalid,
    /// The client must send the server's secret first.
    Refused,
}

impl OldUnlockReply<'_> {
    /// Appends the reply.
    pub fn encode(self, out: &mut Vec<u8>) {
        let (result, request) = match self {
            Self::Ok(request) => (Status::Ok, Some(request)),
            Self::NotFound(request) => (Status::NotFound, Some(request)),
            Self::Invalid => (Status::Invalid, None),
            Self::Refused => (Status::Refused, None),
        };
        out.extend_from_slice(b"{\"attempted\":\"unlock\"");
        push_entry(out, "result", &result);
        if let Some(request) = request {
            push_names(out, request);
        }
        out.push(b'}');
    }
}

/// Appends the names of an old `unlock` for people to read. A single name is followed by its bytes
/// in hexadecimal if the text does not represent all of them.
fn push_names(out: &mut Vec<u8>, OldUnlockRequest { unlock, is_number }: &OldUnlockRequest) {
    match &unlock.names {
        LockNames::One(name) => {
            let (text, hex) = to_text(name);
            let number = is_number.then(|| serde_json::from_str::<&RawValue>(&text));
            match number {
                Some(Ok(number)) => push_entry(out, LOCK_NAME.text, number),
                _ => push_entry(out, LOCK_NAME.text, &text),
            }

            if let Some(hex) = hex {
                push_entry(out, LOCK_NAME.hex, &hex);
            }
        }
        LockNames::Set(names) => {
            let texts: Vec<_> = names.iter().map(|name| to_text(name).0).collect();
            push_entry(out, "lockNames", &texts);
        }
    }
}

/// Appends an entry of an object that has entries already.
fn push_entry(out: &mut Vec<u8>, key: &str, value: &(impl Serialize + ?Sized)) {
    out.push(b',');
    push_json(out, key);
    out.push(b':');
    push_json(out, value);
}

#[cfg(test)]
mod tests;
