//! The JSON of etcd's gateway: requests as texts, and the parts of its answers. Pure functions; what
//! an answer that is no success means is in `answer.rs`.
//!
//! Keys and values are in base64. Numbers of 64 bits are texts. What is zero, false or empty is left
//! out of answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::keys::{KeyCondition, KeyValue, Write};

/// Reads the cluster's id, and nothing else. It needs no rights and no leader.
pub(super) const STATUS: &str = "/v3/maintenance/status";
pub(super) const RANGE: &str = "/v3/kv/range";
pub(super) const TRANSACTION: &str = "/v3/kv/txn";
pub(super) const AUTHENTICATE: &str = "/v3/auth/authenticate";

pub(super) fn read_key(key: &str) -> Value {
    json!({ "key": encoded(key) })
}

pub(super) fn read_prefix(prefix: &str) -> Value {
    let (first, end) = range_of(prefix);
    json!({ "key": first, "range_end": end })
}

pub(super) fn authenticate(user: &str, password: &str) -> Value {
    json!({ "name": user, "password": password })
}

pub(super) fn transaction(conditions: &[KeyCondition<'_>], writes: &[Write<'_>]) -> Value {
    let compare = |condition: &KeyCondition<'_>| {
        json!({
            "key": encoded(condition.key),
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": condition.revision.to_string(),
        })
    };
    let operation = |write: &Write<'_>| match *write {
        Write::Put { key, value } => {
            json!({ "request_put": { "key": encoded(key), "value": STANDARD.encode(value) } })
        }
        Write::Delete { key } => json!({ "request_delete_range": { "key": encoded(key) } }),
        Write::DeletePrefix { prefix } => {
            let (first, end) = range_of(prefix);
            json!({ "request_delete_range": { "key": first, "range_end": end } })
        }
    };
    json!({
        "compare": conditions.iter().map(compare).collect::<Vec<_>>(),
        "success": writes.iter().map(operation).collect::<Vec<_>>(),
    })
}

fn encoded(key: &str) -> String {
    STANDARD.encode(key)
}

/// The first key with this prefix, and the first one after all of these.
fn range_of(prefix: &str) -> (String, String) {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        // UTF-8 has no byte 255, so there is a next one.
        Some(last) => *last = last.saturating_add(1),
        None => return (STANDARD.encode([0]), STANDARD.encode([0])),
    }
    (encoded(prefix), STANDARD.encode(end))
}

/// The keys in the answer to a request to read. `None` if it is not such an answer.
pub(super) fn key_values(answer: &Value) -> Option<Vec<KeyValue>> {
    // It has a continuation only if there was a limit.
    if answer.get("more").is_some_and(|more| more != &Value::Bool(false)) {
        return None;
    }
    match answer.get("kvs") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(kvs) => kvs.as_array()?.iter().map(key_value).collect(),
    }
}

fn key_value(found: &Value) -> Option<KeyValue> {
    let key = String::from_utf8(bytes(found.get("key")?)?).ok()?;
    let value = found.get("value").map_or(Some(Vec::new()), bytes)?;
    Some(KeyValue { key, value, revision: number(found.get("mod_revision")?)? })
}

/// Whether all conditions of a transaction held. `None` if it is not such an answer.
pub(super) fn has_succeeded(answer: &Value) -> Option<bool> {
    answer.get("succeeded").map_or(Some(false), Value::as_bool)
}

/// The token in the answer to a request to authenticate.
pub(super) fn token(answer: &Value) -> Option<&str> {
    answer.get("token")?.as_str().filter(|token| !token.is_empty() && token.is_ascii())
}

/// The id of the etcd cluster and the store's revision, which each answer has.
pub(super) fn header(answer: &Value) -> Option<(u64, i64)> {
    let header = answer.get("header")?;
    let cluster_id = match header.get("cluster_id")? {
        Value::String(digits) => digits.parse().ok()?,
        other => other.as_u64()?,
    };
    Some((cluster_id, header.get("revision").map_or(Some(0), number)?))
}

fn bytes(text: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(text.as_str()?).ok()
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::String(digits) => digits.parse().ok(),
        other => other.as_i64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_compares_revisions_and_writes_in_order() {
        let conditions = [KeyCondition { key: "a", revision: 7 }, KeyCondition { key: "b", revision: 0 }];
        let writes = [
            Write::Put { key: "a", value: &[0, 255] },
            Write::Delete { key: "b" },
            Write::DeletePrefix { prefix: "c/" },
        ];
        let expected = json!({
            "compare": [
                { "key": "YQ==", "target": "MOD", "result": "EQUAL", "mod_revision": "7" },
                { "key": "Yg==", "target": "MOD", "result": "EQUAL", "mod_revision": "0" },
            ],
            "success": [
                { "request_put": { "key": "YQ==", "value": "AP8=" } },
                { "request_delete_range": { "key": "Yg==" } },
                { "request_delete_range": { "key": "Yy8=", "range_end": "YzA=" } },
            ],
        });
        assert_eq!(transaction(&conditions, &writes), expected);
    }

    #[test]
    fn a_prefix_ends_before_the_next_key_and_an_empty_one_is_every_key() {
        assert_eq!(read_prefix("a"), json!({ "key": "YQ==", "range_end": "Yg==" }));
        assert_eq!(read_prefix(""), json!({ "key": "AA==", "range_end": "AA==" }));
    }

    #[test]
    fn what_is_left_out_of_an_answer_is_zero() {
        let answer = json!({ "header": { "cluster_id": "18446744073709551615" } });
        assert_eq!(header(&answer), Some((u64::MAX, 0)));
        assert_eq!((has_succeeded(&answer), key_values(&answer)), (Some(false), Some(vec![])));
        let answer = json!({ "kvs": [{ "key": "YQ==", "mod_revision": "9007199254740993" }] });
        let found = KeyValue { key: "a".to_owned(), value: vec![], revision: 9_007_199_254_740_993 };
        assert_eq!(key_values(&answer), Some(vec![found]));
    }

    #[test]
    fn an_answer_of_another_shape_is_none() {
        for answer in [json!(null), json!([]), json!({}), json!({ "header": 1 }), json!({ "header": {} })] {
            assert_eq!(header(&answer), None, "{answer}");
        }
        assert_eq!(header(&json!({ "header": { "cluster_id": "-1" } })), None);
        assert_eq!(header(&json!({ "header": { "cluster_id": "1", "revision": "x" } })), None);
        assert_eq!(has_succeeded(&json!({ "succeeded": "true" })), None);
        for kvs in [
            json!({}),
            json!([{}]),
            json!([{ "key": "YQ==" }]),
            json!([{ "key": "Y", "mod_revision": "1" }]),
            json!([{ "key": "/w==", "mod_revision": "1" }]),
            json!([{ "key": "YQ==", "value": 1, "mod_revision": "1" }]),
            json!([{ "key": "YQ==", "mod_revision": "1.5" }]),
        ] {
            assert_eq!(key_values(&json!({ "kvs": kvs })), None, "{kvs}");
        }
        assert_eq!(key_values(&json!({ "kvs": [], "more": true })), None);
        for answer in [json!({}), json!({ "token": "" }), json!({ "token": 1 })] {
            assert_eq!(token(&answer), None, "{answer}");
        }
    }
}
