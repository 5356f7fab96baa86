//! The first words between a session and its server. Leaves a connection that notices a lost server before
//! that server gives the session's locks away.

use std::time::Instant;

use super::REQUEST_MAX;
use crate::broker::truncate_owner;
use crate::client::connect_error::{ConnectErrorKind, Refusal};
use crate::client::connection::{Connection, Lost, Signals, Waited};
use crate::client::dial::ConnectOptions;
use crate::client::url::Secret;
use crate::wire::message::{
    Cause, HelloRequest, HelloResult, IdentifyRequest, Keepalive, LockResult, Status, WIND_DOWN_MAX,
};

/// Makes sure that this is a lock server, learns its keepalive, and tells it whose session this is.
pub(super) fn greet(
    connection: &Connection,
    options: &ConnectOptions<'_>,
    secret: Option<Secret>,
    deadline: Option<Instant>,
) -> Result<(), Refusal> {
    let local = |reason: String| Refusal::new(ConnectErrorKind::Local, reason);
    let lost = |lost: Lost| Refusal::new(connection.loss_kind(), lost.0);
    let version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let client = Some("lockd".to_owned());
    let wind_down = options.wind_down.min(WIND_DOWN_MAX);
    if !wind_down.is_zero() {
        connection.stay_open_until_closed();
    }
    let (auth_token, file) = secret.map(|secret| (secret.text, secret.file)).unzip();
    let hello = HelloRequest { client, version, auth_token, wind_down };
    let hello = connection.request("hello", &hello, REQUEST_MAX).map_err(local)?;
    connection.post(&[&hello]).map_err(lost)?;
    if options.owner.is_some() {
        let identify = IdentifyRequest { name: options.owner.map(|owner| truncate_owner(owner).to_owned()) };
        let identify = connection.request("identify", &identify, REQUEST_MAX).map_err(local)?;
        // A server may take no names; then the session has none.
        connection.post_unheard(&[&identify]).map_err(lost)?;
    }
    connection.flush();
    let reply = match connection.wait(&[hello.id], deadline, Signals::Ignored) {
        Ok(Waited::Reply(_, reply)) => {
            reply.map_err(|error| Refusal::new(ConnectErrorKind::Refused, error))?
        }
        Ok(Waited::TimedOut | Waited::Forgotten | Waited::Cancelled | Waited::Interrupted) => {
            return Err(Refusal::unanswered());
        }
        Err(error) => return Err(lost(error)),
    };
    let refused = serde_json::from_str::<LockResult>(reply.get());
    if let Ok(LockResult { status: Status::Refused, reason: Some(reason), cause, .. }) = refused {
        if cause == Some(Cause::Stopping) {
            return Err(Refusal::new(ConnectErrorKind::Closed, reason));
        }
        return Err(Refusal::secret(file.as_deref(), &reason));
    }
    let hello: HelloResult = serde_json::from_str(reply.get()).map_err(|_| Refusal::no_hello())?;
    if hello.features.iter().any(|feature| feature == "bye") {
        connection.say_bye_when_closed();
    }
    let keepalive = Keepalive::client(hello.keepalive.dead_peer_timeout);
    connection.set_keepalive(&keepalive).map_err(|error| local(error.to_string()))
}
