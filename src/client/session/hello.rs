//! The handshake of a session: `hello` and, for a session with a name, `identify`. After it, the
//! connection notices a lost server before that server gives the session's locks away.

use std::time::Instant;

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

/// Checks that this is a lock server that accepts the secret, sets the keepalive to the server's,
/// and tells it the session's name. Returns what the server can do.
pub(super) fn say_hello(
    connection: &ServerConnection,
    options: &ConnectOptions<'_>,
    secret: Option<Secret>,
    deadline: Option<Instant>,
    hook: &mut WaitHook<'_>,
) -> Result<Features, ConnectRefusal> {
    let local = |reason: String| ConnectRefusal::new(ConnectErrorKind::Local, reason);
    let lost = |lost: Lost| ConnectRefusal::lost(connection.loss_kind(), lost.0);
    let version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let client = Some("lockd".to_owned());
    let wind_down = options.wind_down.min(WIND_DOWN_MAX);
    if !wind_down.is_zero() {
        connection.stay_open_until_closed();
    }
    let (auth_token, file) = secret.map(|secret| (secret.text, secret.file)).unzip();
    let hello = HelloRequest { client, version, auth_token, wind_down, resumable: false };
    let hello = connection.request("hello", &hello, REQUEST_MAX).map_err(local)?;
    connection.post(&[&hello]).map_err(lost)?;
    if options.owner.is_some() {
        let identify = IdentifyRequest { name: options.owner.map(|owner| truncate_owner(owner).to_owned()) };
        let identify = connection.request("identify", &identify, REQUEST_MAX).map_err(local)?;
        // If the server does not accept names, the session has none.
        connection.post_unheard(&[&identify]).map_err(lost)?;
    }
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
    let refused = serde_json::from_str::<LockResult>(reply.get());
    if let Ok(LockResult { status: Status::Refused, reason: Some(reason), cause, .. }) = refused {
        if cause == Some(Cause::Stopping) {
            return Err(ConnectRefusal::new(ConnectErrorKind::Closed, reason));
        }
        return Err(ConnectRefusal::secret(file.as_deref(), &reason));
    }
    let hello: HelloResult = serde_json::from_str(reply.get()).map_err(|_| ConnectRefusal::no_hello())?;
    let has = |wanted: &str| hello.features.iter().any(|feature| feature == wanted);
    if has("bye") {
        connection.say_bye_when_closed();
    }
    let keepalive = Keepalive::client(hello.keepalive.dead_peer_timeout);
    connection.set_keepalive(&keepalive).map_err(|error| local(error.to_string()))?;
    Ok(Features { limit: has("limit") })
}
