//! What others may know of a server's part in its cluster. Decides nothing.

use std::time::Duration;

use crate::os::boot_clock::BootTime;
use crate::os::sync::{Arc, Mutex};

/// What is shown of a server's part in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// The name of the cluster.
    pub cluster: String,
    /// Whether this server is the active one.
    pub is_active: bool,
    /// The number of the active server's run, as far as this server knows; 0 if it does not.
    pub epoch: u64,
    /// Where clients find the active server, if that is known.
    pub active: Option<String>,
    /// How long this server may go on if it cannot reach etcd from now on; `None` unless it is the
    /// active one.
    pub left: Option<Duration>,
    /// How often another server has become active, as far as this server has seen.
    pub leader_changes: u64,
    /// Why etcd could not be asked the last time, if so.
    pub etcd_error: Option<String>,
}

#[derive(Debug)]
struct ClusterStatus {
    view: ClusterView,
    limit: Option<BootTime>,
    /// The id of the server that was last seen to be active.
    leader: Option<String>,
}

/// Reads a server's part in its cluster. Clones are of the same server.
#[derive(Clone, Debug)]
pub struct ClusterReader(Arc<Mutex<ClusterStatus>>);

impl ClusterReader {
    pub(super) fn new(cluster: &str) -> Self {
        let view = ClusterView {
            cluster: cluster.to_owned(),
            is_active: false,
            epoch: 0,
            active: None,
            left: None,
            leader_changes: 0,
            etcd_error: None,
        };
        Self(Arc::new(Mutex::new(ClusterStatus { view, limit: None, leader: None })))
    }

    /// The present state.
    #[must_use]
    pub fn read(&self) -> ClusterView {
        let status = self.0.lock();
        let left = status.limit.map(|limit| BootTime::now().until(limit));
        ClusterView { left, ..status.view.clone() }
    }

    /// Notes who is active. Returns whether that is another server than before.
    pub(super) fn note_leader(&self, server: &str, epoch: Option<u64>, address: Option<&str>) -> bool {
        let mut status = self.0.lock();
        let is_new = status.leader.as_deref() != Some(server);
        if is_new {
            status.view.leader_changes += 1;
            status.leader = Some(server.to_owned());
        }
        status.view.epoch = epoch.unwrap_or(0);
        status.view.active = address.map(str::to_owned);
        is_new
    }

    /// Nobody is active, as far as this server knows.
    pub(super) fn note_vacant(&self) {
        self.0.lock().view.active = None;
    }

    /// This server is active, until then.
    pub(super) fn note_active(&self, limit: BootTime) {
        let mut status = self.0.lock();
        status.view.is_active = true;
        status.limit = Some(limit);
    }

    /// This server is not active any more.
    pub(super) fn note_end(&self) {
        let mut status = self.0.lock();
        status.view.is_active = false;
        status.limit = None;
    }

    /// Notes how etcd has answered. Returns what it was before.
    pub(super) fn note_etcd(&self, error: Option<&str>) -> Option<String> {
        std::mem::replace(&mut self.0.lock().view.etcd_error, error.map(str::to_owned))
    }
}
