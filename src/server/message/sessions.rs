//! The commands that are about sessions and connections: `hello`, `identify`, `ping`, `bye`, and
//! `kick`, by which an operator ends the connections of others.

use serde_json::value::RawValue;

use super::super::connection::Flow;
use super::super::server_state::NameRegistration;
use super::service::Call;
use crate::broker::OWNER_BYTES_MAX;
use crate::wire::message::{
    HelloResult, Keepalive, LockResult, Status, encode_pong, parse_hello, parse_identify, parse_kick,
};

/// What a client can rely on beyond the original protocol.
const FEATURES: [&str; 14] = [
    "bye",
    "cancel",
    "convert",
    "deadlock",
    "limit",
    "list",
    "lockNames",
    "mode",
    "orphaned",
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
    let keepalive = Keepalive::server_after_hello(call.connection.base.config.dead_peer_timeout);
    if let Err(error) = call.connection.base.set_keepalive(&keepalive, request.wind_down) {
        // The reply would promise figures that are not in effect: the client could then take itself
        // for the holder of a lock that has gone to another session.
        log::debug!("{}: {error}", call.session().info().address());
        call.connection.next = Flow::Close;
        return;
    }
    call.reply(&HelloResult {
        status: Status::Ok,
        server: "lockd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: FEATURES.map(str::to_owned).to_vec(),
        keepalive,
        resume: None,
    });
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
