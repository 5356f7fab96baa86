//! The commands that tell about locks and change nothing: `inspect`, `list`, `stats`.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::super::server_state::ClusterRun;
use super::super::statistics::{STATISTICS, ServerStats};
use super::service::Call;
use crate::broker::{PageQuery, Space};
use crate::wire::message::{
    ClusterMembership, ClusterRole, InspectResult, ListResult, LockPage, LockResult, Status, parse_inspect,
    parse_list,
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
        let broker = &call.connection.base.server.broker;
        let page = if request.waiting { broker.page_with_waiters(&query) } else { broker.page(&query) };
        let LockPage { locks, more } = page.into();
        ListResult { status: Status::Ok, locks, more }
    });
}

/// The result of `stats`: one object with every number of the table, and of the active server of a
/// cluster what it is there.
struct StatsResult {
    stats: ServerStats,
    cluster: Option<ClusterRun>,
}

impl Serialize for StatsResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", &Status::Ok)?;
        map.serialize_entry("version", env!("CARGO_PKG_VERSION"))?;
        map.serialize_entry("pid", &std::process::id())?;
        for statistic in &STATISTICS {
            map.serialize_entry(statistic.key, &statistic.value(&self.stats))?;
        }
        if let Some(ClusterRun { cluster, epoch, .. }) = &self.cluster {
            let membership =
                ClusterMembership { name: cluster.clone(), epoch: *epoch, role: ClusterRole::Active };
            map.serialize_entry("cluster", &membership)?;
        }
        map.end()
    }
}

pub(super) fn stats(call: &mut Call<'_, '_>) {
    let server = &call.connection.base.server;
    let result = StatsResult { stats: server.stats(), cluster: server.cluster_run() };
    call.reply(&result);
}
