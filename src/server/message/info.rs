//! The commands that tell and look, and those that begin and end a conversation: `inspect`, `list`, `stats`,
//! `identify`, `hello`, `bye`, `ping`.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::super::connection::Flow;
use super::super::server_state::Registered;
use super::super::statistics::{STATISTICS, ServerStats};
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

/// The result of `stats`: one flat object with every number of the table.
struct StatsResult(ServerStats);

impl Serialize for StatsResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", &Status::Ok)?;
        map.serialize_entry("version", env!("CARGO_PKG_VERSION"))?;
        map.serialize_entry("pid", &std::process::id())?;
        for statistic in &STATISTICS {
            map.serialize_entry(statistic.key, &statistic.value(&self.0))?;
        }
        map.end()
    }
}

fn stats(call: &mut Call<'_, '_>) {
    let stats = call.connection.base.server.stats();
    call.reply(&StatsResult(stats));
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
