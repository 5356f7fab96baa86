//! What an answer from an end point means: a success with its JSON, or a refusal, and whether the
//! request may have been carried out all the same. Pure functions.

use serde_json::Value;

use super::error::FailedRequest;
use super::gateway::header;

/// An answer to a request that was carried out.
#[derive(Clone, Debug)]
pub(super) struct EtcdAnswer {
    /// The id of the etcd cluster.
    pub(super) cluster_id: u64,
    /// The store's revision.
    pub(super) revision: i64,
    pub(super) value: Value,
}

/// The text of the refusal to authenticate if etcd has no users.
pub(super) const NO_USERS: &str = "authentication is not enabled";

// The codes of gRPC that the gateway puts into an answer.
const INVALID_ARGUMENT: u64 = 3;
const PERMISSION_DENIED: u64 = 7;
const RESOURCE_EXHAUSTED: u64 = 8;
const UNIMPLEMENTED: u64 = 12;
const UNAUTHENTICATED: u64 = 16;

/// Reads the whole answer to a request.
pub(super) fn read_answer(status: u16, body: &[u8]) -> Result<EtcdAnswer, FailedRequest> {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return Err(not_json(status, body)) };
    if status != 200 {
        return Err(match (message(&value), value.get("code").and_then(Value::as_u64)) {
            (Some(message), Some(code)) => refusal(message, code),
            _ => unknown(status),
        });
    }
    let Some((cluster_id, revision)) = header(&value) else { return Err(not_etcd()) };
    Ok(EtcdAnswer { cluster_id, revision, value })
}

/// An answer that lacks what the request has asked for.
pub(super) fn not_etcd() -> FailedRequest {
    FailedRequest::in_doubt("does not answer as etcd does (version 3.4 or later is needed)").permanently()
}

/// The words of a refusal, which are in one of two places.
fn message(value: &Value) -> Option<&str> {
    ["message", "error"].iter().find_map(|key| value.get(key)?.as_str())
}

/// What etcd means by a refusal. Everything that is not known here may have been carried out.
fn refusal(message: &str, code: u64) -> FailedRequest {
    let has = |part: &str| message.contains(part);
    let text = message.strip_prefix("etcdserver: ").unwrap_or(message);
    match code {
        // Both are found out before the request is carried out.
        _ if has("invalid auth token") || has("revision of auth store is old") => {
            FailedRequest { wants_token: true, ..FailedRequest::refused(text) }
        }
        // How it words that it was shown no token at all.
        INVALID_ARGUMENT if has("user name is empty") => {
            let text = "wants a user: ?user=NAME&password-file=FILE after the name";
            FailedRequest { wants_token: true, ..FailedRequest::refused(text) }.permanently()
        }
        INVALID_ARGUMENT if has("authentication failed") => {
            FailedRequest::refused("the user's name or password is wrong").permanently()
        }
        _ if text == NO_USERS => FailedRequest::refused(text).permanently(),
        PERMISSION_DENIED => {
            FailedRequest::refused(format!("the user may not do that: {text}")).permanently()
        }
        UNAUTHENTICATED | INVALID_ARGUMENT => FailedRequest::refused(text).permanently(),
        RESOURCE_EXHAUSTED if has("larger than max") => {
            FailedRequest::refused(format!("the request is too large: {text}")).permanently()
        }
        RESOURCE_EXHAUSTED => FailedRequest::refused(text),
        UNIMPLEMENTED => not_etcd(),
        // It refuses before it proposes the request to the others. When it loses its leader later,
        // it says that the request timed out, or that the leader has changed.
        _ if has("etcdserver: no leader") || has("not supported for learner") => FailedRequest::refused(text),
        _ => FailedRequest::in_doubt(text),
    }
}

/// An answer without a message of etcd.
fn unknown(status: u16) -> FailedRequest {
    let failed = FailedRequest::in_doubt(format!("answers with the HTTP status {status}"));
    // A proxy between, or a gateway that has lost its own server.
    if status >= 500 || status == 408 || status == 429 { failed } else { failed.permanently() }
}

fn not_json(status: u16, body: &[u8]) -> FailedRequest {
    let wants_tls = b"HTTP request to an HTTPS server";
    if status == 400 && body.windows(wants_tls.len()).any(|part| part == wants_tls) {
        let text = "speaks TLS there: write etcd+tls:// instead of etcd://";
        return FailedRequest::refused(text).permanently();
    }
    match status {
        200 => not_etcd(),
        status => unknown(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it may have happened, is permanent, wants a token.
    fn judged(status: u16, body: &str) -> (bool, bool, bool) {
        let failed = read_answer(status, body.as_bytes()).unwrap_err();
        assert!(failed.was_sent);
        (failed.may_have_happened, failed.is_permanent, failed.wants_token)
    }

    #[test]
    fn refusals_of_etcd_say_whether_the_request_may_have_been_carried_out() {
        for (status, message, code, expected) in [
            (401, "etcdserver: invalid auth token", 16, (false, false, true)),
            (400, "etcdserver: revision of auth store is old", 3, (false, false, true)),
            (400, "etcdserver: user name is empty", 3, (false, true, true)),
            (400, "etcdserver: authentication failed, invalid user ID or password", 3, (false, true, false)),
            (400, "etcdserver: authentication is not enabled", 9, (false, true, false)),
            (403, "etcdserver: permission denied", 7, (false, true, false)),
            (400, "etcdserver: request is too large", 3, (false, true, false)),
            (429, "etcdserver: too many requests", 8, (false, false, false)),
            (429, "etcdserver: mvcc: database space exceeded", 8, (false, false, false)),
            (429, "grpc: received message larger than max (3145746 vs. 2097152)", 8, (false, true, false)),
            (503, "etcdserver: no leader", 14, (false, false, false)),
            (503, "etcdserver: leader changed", 14, (true, false, false)),
            (503, "etcdserver: request timed out", 14, (true, false, false)),
            (503, "etcdserver: request timed out, possibly due to connection lost", 14, (true, false, false)),
            (503, "etcdserver: server stopped", 14, (true, false, false)),
            (504, "context deadline exceeded", 4, (true, false, false)),
            (500, "something new", 13, (true, false, false)),
            (501, "unknown service", 12, (true, true, false)),
        ] {
            for key in ["message", "error"] {
                let body = serde_json::json!({ key: message, "code": code }).to_string();
                assert_eq!(judged(status, &body), expected, "{body}");
            }
        }
    }

    #[test]
    fn answers_of_others_may_have_been_carried_out() {
        for (status, body, is_permanent) in [
            (200, "", true),
            (200, "<html>", true),
            (200, "{}", true),
            (200, "{\"header\":{}}", true),
            (301, "", true),
            (404, "404 page not found\n", true),
            (404, "{\"error\":\"Not Found\"}", true),
            (502, "<html>bad gateway</html>", false),
            (503, "", false),
            (504, "{}", false),
            (429, "slow down", false),
        ] {
            assert_eq!(judged(status, body), (true, is_permanent, false), "{status} {body}");
        }
    }

    #[test]
    fn a_server_that_wants_tls_is_recognized() {
        let failed = read_answer(400, b"Client sent an HTTP request to an HTTPS server.\n").unwrap_err();
        assert!(failed.text.contains("etcd+tls://") && failed.is_permanent && !failed.may_have_happened);
    }
}
