//! The commands that tell about locks and change nothing: `inspect`, `list`, `stats`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::service::Call;
use crate::broker::{PageQuery, Space};
use crate::wire::message::{
    InspectResult, ListResult, LockPage, LockResult, Status, parse_inspect, parse_list,
};

pub(super) fn inspect(call: &mut Call<'_, '_>) {
    call.answer(parse_inspect, |call, request| {
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

pub(super) fn list(call: &mut Call<'_, '_>) {
    if !call.connection.base.config.dump {
        return call.reply(&LockResult::refused("listing is disabled on this server (no-dump)"));
    }
    call.answer(parse_list, |call, request| {
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

pub(super) fn stats(call: &mut Call<'_, '_>) {
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

/// Rounded up, so that a grace that is not over is never shown as zero.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
