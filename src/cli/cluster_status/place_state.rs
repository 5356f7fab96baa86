//! What the server at one place is, as its answer to `stats` says, or the lack of an answer. Pure.

use std::time::Duration;

use lockd::client::{ConnectError, ConnectErrorKind, RpcError};
use lockd::wire::message::{Cause, ClusterMembership, ClusterRole, LockResult, Status};
use serde::{Deserialize, Serialize};

/// What the server at one place is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "role", rename_all = "camelCase")]
pub(super) enum PlaceState {
    Active {
        cluster: String,
        epoch: u64,
    },
    Standby {
        /// Where clients find the active server, if the standby knows that.
        #[serde(skip_serializing_if = "Option::is_none")]
        active: Option<String>,
    },
    /// The server is not a member of a cluster.
    Alone,
    /// No server has answered.
    Unreachable {
        reason: String,
    },
    /// A server has answered, but not what it is; or it could not be asked, for a reason that is here.
    Unknown {
        reason: String,
    },
}

impl PlaceState {
    pub(super) fn unanswered(limit: Duration) -> Self {
        Self::Unreachable { reason: format!("no answer within {} s", limit.as_secs_f64()) }
    }

    pub(super) fn of_connect_error(error: &ConnectError) -> Self {
        let reason = error.reason();
        match (error, error.kind()) {
            (ConnectError::Refused { active, .. }, ConnectErrorKind::Standby) => {
                Self::Standby { active: active.clone() }
            }
            (_, kind) if kind.is_absence() => Self::Unreachable { reason },
            (_, ConnectErrorKind::UnknownHost) => Self::Unreachable { reason },
            _ => Self::Unknown { reason },
        }
    }

    pub(super) fn of_rpc_error(error: &RpcError, limit: Duration) -> Self {
        match error {
            RpcError::TimedOut => Self::unanswered(limit),
            RpcError::Lost(reason) => Self::Unreachable { reason: reason.clone() },
            error => Self::Unknown { reason: error.to_string() },
        }
    }

    /// Reads the result of `stats`.
    pub(super) fn of_stats(result: &str) -> Self {
        #[derive(Deserialize)]
        struct OnlyCluster {
            cluster: Option<ClusterMembership>,
        }
        let senseless = |error: serde_json::Error| Self::Unknown {
            reason: format!("the server's answer makes no sense: {error}"),
        };
        // Every result can be read as this, too.
        match serde_json::from_str(result) {
            Ok(LockResult { status: Status::Ok, .. }) => {}
            Ok(LockResult { cause: Some(Cause::Standby), active, .. }) => return Self::Standby { active },
            Ok(LockResult { reason, status, .. }) => {
                let reason = reason.unwrap_or_else(|| format!("the server says {status:?}"));
                return Self::Unknown { reason };
            }
            Err(error) => return senseless(error),
        }
        match serde_json::from_str(result) {
            Ok(OnlyCluster { cluster: None }) => Self::Alone,
            Ok(OnlyCluster {
                cluster: Some(ClusterMembership { name, epoch, role: ClusterRole::Active }),
            }) => Self::Active { cluster: name, epoch },
            Ok(OnlyCluster { cluster: Some(_) }) => {
                Self::Unknown { reason: "its role is one that this program does not know".to_owned() }
            }
            Err(error) => senseless(error),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self, Self::Active { .. })
    }

    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_answer_to_stats_tells_the_role() {
        let unknown = |reason: &str| PlaceState::Unknown { reason: reason.to_owned() };
        for (result, state) in [
            (
                r#"{"status":"ok","locks":3,"cluster":{"name":"main","epoch":7,"role":"active"}}"#,
                PlaceState::Active { cluster: "main".to_owned(), epoch: 7 },
            ),
            (r#"{"status":"ok","locks":3}"#, PlaceState::Alone),
            (
                r#"{"status":"refused","reason":"x","cause":"standby","active":"a:1"}"#,
                PlaceState::Standby { active: Some("a:1".to_owned()) },
            ),
            (r#"{"status":"refused","reason":"x","cause":"standby"}"#, PlaceState::Standby { active: None }),
            (r#"{"status":"refused","reason":"wrong authToken"}"#, unknown("wrong authToken")),
            (
                r#"{"status":"ok","cluster":{"name":"main","epoch":7,"role":"witness"}}"#,
                unknown("its role is one that this program does not know"),
            ),
        ] {
            assert_eq!(PlaceState::of_stats(result), state, "{result}");
        }
        for result in ["[]", r#"{"status":"ok","cluster":3}"#] {
            assert!(matches!(PlaceState::of_stats(result), PlaceState::Unknown { .. }), "{result}");
        }
    }

    #[test]
    fn a_server_that_refuses_is_not_unreachable() {
        let server = || "tcp://a".to_owned();
        let absent = ConnectError::Unreachable { server: server(), error: io::ErrorKind::TimedOut.into() };
        assert_eq!(
            PlaceState::of_connect_error(&absent),
            PlaceState::Unreachable { reason: "timed out".to_owned() }
        );
        let refused = |kind, active: Option<&str>| {
            let (reason, active) = ("why".to_owned(), active.map(str::to_owned));
            PlaceState::of_connect_error(&ConnectError::Refused { server: server(), reason, kind, active })
        };
        let secret = PlaceState::Unknown { reason: "why".to_owned() };
        assert_eq!(refused(ConnectErrorKind::Secret, None), secret);
        assert_eq!(refused(ConnectErrorKind::Local, None), secret, "a file that cannot be read");
        let standby = PlaceState::Standby { active: Some("a:1".to_owned()) };
        assert_eq!(refused(ConnectErrorKind::Standby, Some("a:1")), standby);
        let limit = Duration::from_secs(2);
        let late = PlaceState::Unreachable { reason: "no answer within 2 s".to_owned() };
        assert_eq!(PlaceState::of_rpc_error(&RpcError::TimedOut, limit), late);
        assert!(!PlaceState::of_rpc_error(&RpcError::Unknown, limit).is_unreachable());
    }
}
