//! The commands that tell and look, and those that begin and end a conversation: `inspect`, `list`, `stats`,
//! `identify`, `hello`, `bye`, `ping`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::connection::Flow;
use super::super::server_state::Registered;
use super::service::{Call, Service};
use crate::broker::{OWNER_BYTES_MAX, PageQuery, Space};
use crate::wire::message::{
    HelloResult, InspectResult, Keepalive, ListResult, LockPage, LockResult, Malformed, Status, encode_pong,
    parse_hello, parse_identify, parse_inspect, parse_list,
};

/// What a client can rely on beyond the original protocol.
const FEATURES: [&str; 11] = [
    "bye",
    "cancel",
    "convert",
    "deadlock",
    "list",
    "lockNames",
    "mode",
    "orphaned",
    "timeLimit",
    "token",
    "windDown",
];

/// The command by which a client says goodbye.
pub(super) const BYE: &str = "bye";

pub(super) fn add_to(service: &mut Service) {
    service.on("inspect", inspect).on("list", list).on("stats", stats);
    service.on("identify", identify).on("hello", hello).on(BYE, bye).on("ping", ping);
}

/// Replies with what `result` makes of the parameters, or with what is wrong with them. None at all count
/// as an empty object: these commands are not the original's, which would not have replied.
pub(super) fn reply_to<P, R: Serialize>(
    call: &mut Call<'_, '_>,
    parse: impl FnOnce(&RawValue) -> Result<P, Malformed>,
    result: impl FnOnce(&Call<'_, '_>, P) -> R,
) {
    match parse(call.parameters().unwrap_or(RawValue::NULL)) {
        Ok(parameters) => {
            let result = result(call, parameters);
            call.reply(&result);
        }
        Err(malformed) => call.reply(&LockResult::from(malformed)),
    }
}

fn inspect(call: &mut Call<'_, '_>) {
    reply_to(call, parse_inspect, |call, request| {
        let seen = call.session().inspect(Space::Main, request.name.as_bytes());
        InspectResult {
            status: Status::Ok,
            mode: seen.mode,
            holders: seen.holders,
            waiters: seen.waiters,
            orphaned: seen.orphaned,
        }
    });
}

fn list(call: &mut Call<'_, '_>) {
    if !call.connection.base.config.dump {
        return call.reply(&LockResult::refused("listing is disabled on this server (no-dump)"));
    }
    reply_to(call, parse_list, |call, request| {
        let query = PageQuery {
            space: Space::Main,
            prefix: request.prefix,
            after: request.after,
            limit: request.limit,
        };
        let LockPage { locks, more } = call.connection.base.server.broker.page(&query).into();
        ListResult { status: Status::Ok, locks, more }
    });
}

/// The result of `stats`: gauges and counters, flat.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsResult {
    status: Status,
    version: &'static str,
    pid: u32,
    uptime: u64,
    grace: u64,
    connections: usize,
    connections_refused: u64,
    messages: u64,
    sessions: usize,
    locks: usize,
    shared_locks: usize,
    waiting: usize,
    grants: u64,
    waits: u64,
    timeouts: u64,
    cancels: u64,
    deadlocks: u64,
    orphans: u64,
    shared_orphans: u64,
}

fn stats(call: &mut Call<'_, '_>) {
    let server = call.connection.base.server.clone();
    let stats = server.broker.stats();
    call.reply(&StatsResult {
        status: Status::Ok,
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        uptime: server.started.elapsed().as_secs(),
        grace: whole_seconds(server.broker.grace()),
        connections: server.connections(),
        connections_refused: server.refused.load(Relaxed),
        messages: server.messages.load(Relaxed),
        sessions: stats.sessions,
        locks: stats.locks,
        shared_locks: stats.shared_locks,
        waiting: stats.waiting,
        grants: stats.grants,
        waits: stats.waits,
        timeouts: stats.timeouts,
        cancels: stats.cancels,
        deadlocks: stats.deadlocks,
        orphans: stats.orphans,
        shared_orphans: stats.shared_orphans,
    });
}

/// Rounded up, so that a time that is not over is not told as zero.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn identify(call: &mut Call<'_, '_>) {
    reply_to(call, parse_identify, |call, request| {
        let name = request.name.as_deref().map(str::as_bytes);
        match call.connection.base.server.register(call.session().info(), name) {
            Registered::Done => LockResult::new(Status::Ok),
            Registered::TooLong => {
                let reason = Some(format!("the name is longer than {OWNER_BYTES_MAX} bytes"));
                LockResult { reason, ..LockResult::new(Status::Invalid) }
            }
            Registered::Disabled => {
                LockResult::refused("registering names is disabled on this server (no-registry)")
            }
        }
    });
}

fn hello(call: &mut Call<'_, '_>) {
    let request = match parse_hello(call.parameters().unwrap_or(RawValue::NULL)) {
        Ok(request) => request,
        Err(malformed) => return call.reply(&LockResult::from(malformed)),
    };
    let keepalive = Keepalive::server_after_hello(call.connection.base.config.dead_peer_timeout);
    if let Err(error) = call.connection.base.set_keepalive(&keepalive, request.wind_down) {
        // Told what does not hold, the client could rely on a lock that has gone to another.
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
    });
}

/// The client ends its session in an orderly way. It takes itself for a holder no more, so its locks are freed at
/// once, and nobody is told of a holder that has vanished.
fn bye(call: &mut Call<'_, '_>) {
    let base = &call.connection.base;
    base.send_queue.note_goodbye();
    base.session.leave();
    call.reply(&LockResult::new(Status::Ok));
    call.connection.next = Flow::Close;
}

fn ping(call: &mut Call<'_, '_>) {
    match (call.id(), call.parameters()) {
        (Some(id), Some(parameters)) => call.connection.reply(|out| encode_pong(out, id, parameters)),
        _ => call.reply(&LockResult::new(Status::Ok)),
    }
}
