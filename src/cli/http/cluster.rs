//! `/cluster`: what the server is in its cluster, as JSON. Pure.

use lockd::server::cluster::ClusterView;
use serde::Serialize;

/// What is shown of a member of a cluster. It names neither etcd nor what is wrong with it: that is in
/// the log, which fewer people read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownMember<'a> {
    name: &'a str,
    role: &'static str,
    /// The number of the active server's run, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// Where clients find the active server, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<&'a str>,
    /// How long the active server may go on if etcd confirms no more that it is active, to a tenth.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<f64>,
    etcd_fails: bool,
}

/// The member of a cluster under `cluster`, which is null for a server that is in no cluster.
pub(super) fn to_json(view: Option<&ClusterView>) -> String {
    #[derive(Serialize)]
    struct ShownCluster<'a> {
        cluster: Option<ShownMember<'a>>,
    }
    let cluster = view.map(|view| ShownMember {
        name: &view.cluster,
        role: if view.is_active { "active" } else { "standby" },
        epoch: (view.epoch > 0).then_some(view.epoch),
        active: view.active.as_deref(),
        seconds_left: view.left.map(|left| (left.as_secs_f64() * 10.0).round() / 10.0),
        etcd_fails: view.etcd_error.is_some(),
    });
    // It cannot fail: strings and numbers under keys that are strings.
    serde_json::to_string(&ShownCluster { cluster }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(to_json(None), r#"{"cluster":null}"#);
        let standby = ClusterView {
            cluster: "main".to_owned(),
            is_active: false,
            epoch: 0,
            active: None,
            left: None,
            leader_changes: 0,
            etcd_error: Some("http://10.0.0.1:2379 is on fire".to_owned()),
        };
        assert_eq!(
            to_json(Some(&standby)),
            r#"{"cluster":{"name":"main","role":"standby","etcdFails":true}}"#
        );
        let active = ClusterView {
            is_active: true,
            epoch: 7,
            active: Some("a:1".to_owned()),
            left: Some(Duration::from_millis(4449)),
            etcd_error: None,
            ..standby
        };
        assert_eq!(
            to_json(Some(&active)),
            r#"{"cluster":{"name":"main","role":"active","epoch":7,"active":"a:1","secondsLeft":4.4,"etcdFails":false}}"#
        );
    }
}
