//! What a cluster keeps in etcd: the names of its keys, and the values of those that are not the
//! keeper's. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::times::ClusterTimes;
use crate::wire::message::ResumeId;

/// The version of the keys. A server leaves alone what another version has written.
const VERSION: u32 = 1;

/// The names of a cluster's keys.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// Before all of them.
    pub(super) prefix: String,
    /// The times by which all servers of the cluster go.
    pub(super) settings: String,
    /// Who is active. The active server rewrites it again and again.
    pub(super) leader: String,
    /// Written once by each server that becomes active: what it writes later counts only while this
    /// is its own.
    pub(super) term: String,
    /// The record of the keeper.
    pub(super) state: String,
    /// Before all tombstones.
    pub(super) tombstones: String,
}

impl Keys {
    pub(super) fn new(cluster: &str) -> Self {
        let prefix = format!("/lockd/{cluster}/");
        let key = |name: &str| format!("{prefix}{name}");
        Self {
            settings: key("settings"),
            leader: key("leader"),
            term: key("term"),
            state: key("state"),
            tombstones: key("tombstones/"),
            prefix,
        }
    }

    /// Before the tombstones of one run.
    pub(super) fn tombstones_of(&self, epoch: u64) -> String {
        format!("{}{epoch}/", self.tombstones)
    }

    pub(super) fn tombstone(&self, epoch: u64, session: ResumeId) -> String {
        format!("{}{session}", self.tombstones_of(epoch))
    }

    /// The run and the session of a tombstone.
    pub(super) fn read_tombstone(&self, key: &str) -> Option<(u64, ResumeId)> {
        let (epoch, session) = key.strip_prefix(&self.tombstones)?.split_once('/')?;
        Some((epoch.parse().ok()?, session.parse().ok()?))
    }
}

/// The value of the leader's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeaderKey {
    version: u32,
    /// The number of the run. The server finds that out after its first write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<u64>,
    /// A random id of the process.
    pub(super) server: String,
    /// Counts the writes of the process, so that it recognizes each of them.
    pub(super) write: u64,
    /// Where clients find the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    /// The leader timeout by which the server goes, in seconds. The settings may have been deleted,
    /// and written anew with another one.
    leader_timeout: u64,
    /// The server has handed over: the next one need not wait.
    #[serde(default)]
    pub(super) vacated: bool,
}

impl LeaderKey {
    pub(super) fn new(server: String, address: Option<String>, times: &ClusterTimes) -> Self {
        let leader_timeout = times.leader_timeout.as_secs();
        Self { version: VERSION, epoch: None, server, write: 0, address, leader_timeout, vacated: false }
    }

    /// The leader timeout by which the server goes.
    pub(super) fn leader_timeout(&self) -> Duration {
        Duration::from_secs(self.leader_timeout)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Strings and numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` if another version has written it, or something else.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok().filter(|key: &Self| key.version == VERSION)
    }
}

/// The value of the key of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterSettings {
    version: u32,
    /// In seconds.
    dead_peer_timeout: u64,
    /// In seconds.
    leader_timeout: u64,
}

impl ClusterSettings {
    pub(super) fn of(times: &ClusterTimes) -> Self {
        let seconds = |time: Duration| time.as_secs();
        Self {
            version: VERSION,
            dead_peer_timeout: seconds(times.dead_peer_timeout),
            leader_timeout: seconds(times.leader_timeout),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Compares these with what the cluster goes by.
    ///
    /// # Errors
    /// What is different, for people.
    pub(super) fn check(&self, value: &[u8]) -> Result<(), String> {
        let found: Self = serde_json::from_slice(value)
            .ok()
            .filter(|found: &Self| found.version == VERSION)
            .ok_or("another version of lockd has written the settings of the cluster")?;
        if found == *self {
            return Ok(());
        }
        Err(format!(
            "the cluster goes by a dead-peer timeout of {} s and a leader timeout of {} s, and this server by \
             {} s and {} s: all servers of a cluster need the same",
            found.dead_peer_timeout, found.leader_timeout, self.dead_peer_timeout, self.leader_timeout
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_read_as_it_was_named() {
        let keys = Keys::new("main");
        let session: ResumeId = format!("{:032x}", 7).parse().unwrap();
        let key = keys.tombstone(3, session);
        assert!(key.starts_with("/lockd/main/tombstones/3/"));
        assert_eq!(keys.read_tombstone(&key), Some((3, session)));
        for other in ["/lockd/main/tombstones/3/x", "/lockd/main/tombstones/x", "/lockd/main/state"] {
            assert_eq!(keys.read_tombstone(other), None, "{other}");
        }
    }

    #[test]
    fn what_another_version_has_written_is_not_understood() {
        const SECOND: Duration = Duration::from_secs(1);
        const TIMES: ClusterTimes = ClusterTimes { dead_peer_timeout: SECOND, leader_timeout: SECOND };
        let key = LeaderKey::new("me".to_owned(), Some("a:1".to_owned()), &TIMES);
        for key in [&key, &LeaderKey { epoch: Some(3), ..key.clone() }] {
            assert_eq!(LeaderKey::parse(&key.encode()).as_ref(), Some(key));
        }
        assert_eq!(LeaderKey::parse(&LeaderKey { version: 2, ..key }.encode()), None);
        assert_eq!(LeaderKey::parse(b"something else"), None);
    }

    #[test]
    fn other_settings_are_named() {
        let times = |t, l| ClusterTimes::new(Duration::from_secs(t), Duration::from_secs(l)).unwrap();
        let own = ClusterSettings::of(&times(25, 5));
        own.check(&own.encode()).unwrap();
        let error = own.check(&ClusterSettings::of(&times(25, 4)).encode()).unwrap_err();
        assert!(error.contains("25 s and a leader timeout of 4 s"), "{error}");
        assert!(own.check(b"").unwrap_err().contains("another version"));
    }
}
