//! The handshake of a session: `hello` and, for a session with a name, `identify`. After it, the
//! connection notices a lost server before that server gives the session's locks away.

use std::path::Path;
use std::time::Instant;

use serde_json::value::RawValue;

use crate::broker::truncate_owner;
use crate::client::connect_error::{ConnectErrorKind, ConnectRefusal};
use crate::client::connection::{Lost, OnSignal, REQUEST_MAX, ReplyWait, ServerConnection};
use crate::client::dial::ConnectOptions;
use crate::client::url::Secret;
use crate::client::wait_hook::WaitHook;
use crate::wire::message::{
    Cause, HelloRequest, HelloResult, IdentifyRequest, Keepalive, LockResult, Status, WIND_DOWN_MAX,
};

/// What a server can do that older ones cannot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    /// It knows limited locks.
    pub(super) limit: bool,
}

/// What a session with these options says in `hello`.
pub(in crate::client) fn hello_request(
    options: &ConnectOptions<'_>,
    secret: Option<&Secret>,
    resumable: bool,
) -> HelloRequest {
    HelloRequest {
        client: Some("lockd".to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        auth_token: secret.map(|secret| secret.text.clone()),
        wind_down: options.wind_down.min(WIND_DOWN_MAX),
        resumable,
    }
}

/// Checks that this is a lock server that accepts the secret, sets the keepalive to the server's,
/// and tells it the session's name. Returns what the server has answered.
pub(super) fn say_hello(
    connection: &ServerConnection,
    options: &ConnectOptions<'_>,
    secret: Option<&Secret>,
    deadline: Option<Instant>,
    hook: &mut WaitHook<'_>,
) -> Result<HelloResult, ConnectRefusal> {
    let local = |reason: String| ConnectRefusal::new(ConnectErrorKind::Local, reason);
    let lost = |lost: Lost| ConnectRefusal::lost(connection.loss_kind(), lost.0);
    let hello = hello_request(options, secret, connection.keeps_proof());
    if !hello.wind_down.is_zero() {
        connection.stay_open_until_closed();
    }
    let hello = connection.request("hello", &hello, REQUEST_MAX).map_err(local)?;
    connection.post(&[&hello]).map_err(lost)?;
    introduce(connection, options.owner).map_err(lost)?;
    connection.flush();
    let on_signal = OnSignal::interrupt_if(hook.sees_signals());
    let reply = match connection.wait_with_hook(&[hello.id], deadline, on_signal, hook) {
        Ok(ReplyWait::Reply(_, reply)) => {
            reply.map_err(|error| ConnectRefusal::new(ConnectErrorKind::Refused, error))?
        }
        Ok(ReplyWait::TimedOut | ReplyWait::Forgotten | ReplyWait::Cancelled | ReplyWait::Interrupted) => {
            return Err(ConnectRefusal::unanswered());
        }
        Err(error) => return Err(lost(error)),
    };
    read_hello(&reply, secret.map(|secret| secret.file.as_path()))
}

/// Posts the name of the session, if it has one. If the server does not accept names, the session
/// has none.
pub(super) fn introduce(connection: &ServerConnection, owner: Option<&str>) -> Result<(), Lost> {
    let Some(owner) = owner else { return Ok(()) };
    let identify = IdentifyRequest { name: Some(truncate_owner(owner).to_owned()) };
    let identify = connection.request("identify", &identify, REQUEST_MAX).map_err(Lost)?;
    connection.post_unheard(&[&identify])
}

/// Reads the answer to `hello`. `shown` is the file with the secret that the server was shown.
pub(in crate::client) fn read_hello(
    reply: &RawValue,
    shown: Option<&Path>,
) -> Result<HelloResult, ConnectRefusal> {
    check_refusal(reply, shown)?;
    serde_json::from_str(reply.get()).map_err(|_| ConnectRefusal::no_hello())
}

/// Whether the answer to `hello` is a refusal, and of what kind.
pub(in crate::client) fn check_refusal(reply: &RawValue, shown: Option<&Path>) -> Result<(), ConnectRefusal> {
    let result = serde_json::from_str::<LockResult>(reply.get());
    let Ok(LockResult { status: Status::Refused, reason: Some(reason), cause, active, .. }) = result else {
        return Ok(());
    };
    Err(match cause {
        Some(Cause::Stopping) => ConnectRefusal::new(ConnectErrorKind::Closed, reason),
        Some(Cause::Standby) => ConnectRefusal::standby(reason, active),
        Some(Cause::Grace | Cause::Other) | None => ConnectRefusal::secret(shown, &reason),
    })
}

/// Sets the connection to what the server has answered. Returns what the server can do.
pub(super) fn accept_hello(
    connection: &ServerConnection,
    hello: &HelloResult,
) -> Result<Features, ConnectRefusal> {
    let has = |wanted: &str| hello.features.iter().any(|feature| feature == wanted);
    if has("bye") {
        connection.say_bye_when_closed();
    }
    if hello.resume.is_none() {
        connection.keep_no_proof();
    }
    let keepalive = Keepalive::client(hello.keepalive.dead_peer_timeout);
    let set = connection.set_keepalive(&keepalive);
    set.map_err(|error| ConnectRefusal::new(ConnectErrorKind::Local, error.to_string()))?;
    Ok(Features { limit: has("limit") })
}
