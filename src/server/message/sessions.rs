//! The commands that are about sessions and connections: `hello`, `identify`, `ping`, `bye`, and
//! `kick`, by which an operator ends the connections of others.

use serde_json::value::RawValue;

use super::super::connection::{Connection, Flow};
use super::super::server_state::NameRegistration;
use super::service::Call;
use crate::broker::OWNER_BYTES_MAX;
use crate::wire::message::{
    HelloResult, Keepalive, LockResult, Status, encode_pong, parse_hello, parse_identify, parse_kick,
};

/// The feature that a server with a state directory has: sessions that resume.
const RESUME: &str = "resume";

/// What a client can rely on beyond the original protocol.
const FEATURES: [&str; 15] = [
    "bye",
    "cancel",
    "convert",
    "deadlock",
    "limit",
    "list",
    "lockNames",
    "mode",
    "orphaned",
    RESUME,
    "session",
    "timeLimit",
    "token",
    "waiting",
    "windDown",
];

pub(super) fn hello(call: &mut Call<'_, '_>) {
    let request = match parse_hello(call.parameters().unwrap_or(RawValue::NULL)) {
        Ok(request) => request,
        Err(malformed) => return call.reply(&LockResult::from(malformed)),
    };
    if request.resumable {
        call.connection.base.make_resumable();
        call.connection.next = Flow::Again;
    }
    let keepalive = keepalive_of(call.connection.base);
    if !set_socket_keepalive(call, &keepalive) {
        return;
    }
    call.connection.base.set_terms(&keepalive, request.wind_down);
    let greeting = greeting(call, keepalive);
    call.reply(&greeting);
}

/// The figures for a client that has said `hello`.
pub(super) fn keepalive_of(connection: &Connection) -> Keepalive {
    Keepalive::server_after_hello(connection.config.dead_peer_timeout)
}

/// Sets how the kernel detects that a client is gone that says `hello` or resumes. False if that
/// fails; then the connection is closed: what it would be told would not be in effect, and it could
/// take itself for the holder of a lock that has gone to another session.
pub(super) fn set_socket_keepalive(call: &mut Call<'_, '_>, keepalive: &Keepalive) -> bool {
    let set = call.connection.base.send_queue.stream.set_keepalive(keepalive);
    if let Err(error) = &set {
        log::debug!("{}: {error}", call.session().info().address());
        call.connection.next = Flow::Close;
    }
    set.is_ok()
}

/// What such a client is told.
pub(super) fn greeting(call: &Call<'_, '_>, keepalive: Keepalive) -> HelloResult {
    let base = &call.connection.base;
    let sessions = &base.server.resumable;
    let offers = |feature: &&str| *feature != RESUME || sessions.resumption().is_some();
    let resume = base.resumable.as_ref().and_then(|resumable| sessions.grant(resumable, &keepalive));
    HelloResult {
        status: Status::Ok,
        server: "lockd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: FEATURES.into_iter().filter(offers).map(str::to_owned).collect(),
        keepalive,
        resume,
    }
}

pub(super) fn identify(call: &mut Call<'_, '_>) {
    call.answer(parse_identify, |call, request| {
        let name = request.name.as_deref().map(str::as_bytes);
        match call.connection.base.server.register(call.session().info(), name) {
            NameRegistration::Done => LockResult::new(Status::Ok),
            NameRegistration::TooLong => {
                let reason = Some(format!("the name is longer than {OWNER_BYTES_MAX} bytes"));
                LockResult { reason, ..LockResult::new(Status::Invalid) }
            }
            NameRegistration::Disabled => {
                LockResult::refused("registering names is disabled on this server (no-registry)")
            }
        }
    });
}

pub(super) fn ping(call: &mut Call<'_, '_>) {
    match (call.id(), call.parameters()) {
        (Some(id), Some(parameters)) => call.connection.reply(|out| encode_pong(out, id, parameters)),
        _ => call.reply_status(Status::Ok),
    }
}

/// The client ends its session in an orderly way. It no longer takes itself for a holder, so its
/// locks are freed at once, and no later holder is told that a lock was orphaned.
pub(super) fn bye(call: &mut Call<'_, '_>) {
    let base = &call.connection.base;
    base.send_queue.note_goodbye();
    base.session.close();
    call.reply_status(Status::Ok);
    call.connection.next = Flow::Close;
}

/// Ends the connections of the sessions with this address or name, if the server allows it.
pub(super) fn kick(call: &mut Call<'_, '_>) {
    if !call.connection.base.config.kick {
        return call.reply(&LockResult::refused(
            "kicking is disabled on this server: it was started without --allow-kick",
        ));
    }
    call.answer(parse_kick, |call, request| {
        let kicked = call.connection.base.server.kick(|info| match (&request.address, &request.name) {
            (Some(address), _) => *info.address() == **address,
            (None, Some(name)) => info.name().is_some_and(|known| *known == *name.as_bytes()),
            (None, None) => false,
        });
        let by = call.session().info();
        for info in &kicked {
            // Formatted as Debug, which escapes: clients choose these names, and could break up log
            // lines.
            log::warn!(
                "{} ({:?}) is kicked by {} ({:?})",
                info.address(),
                info.label(),
                by.address(),
                by.label()
            );
        }
        LockResult::new(if kicked.is_empty() { Status::NotFound } else { Status::Ok })
    });
}
