use std::time::Duration;

use crate::broker::LockName;
use crate::wire::message::UnlockRequest;
use crate::wire::message::replies::*;
use crate::wire::message::{ResumeId, ResumeSecret};

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before ".to_vec();
    encode(&mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("before ").unwrap().to_owned()
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn result_of(result: &LockResult) -> String {
    encoded(|out| encode_result(out, &raw("1"), result))
}

#[test]
fn a_result_with_only_a_status_has_no_other_key() {
    let statuses = [
        (Status::Ok, "ok"),
        (Status::Timeout, "timeout"),
        (Status::Invalid, "invalid"),
        (Status::Deadlock, "deadlock"),
        (Status::Refused, "refused"),
        (Status::NotFound, "notFound"),
        (Status::Unknown, "unknown"),
        (Status::Cancelled, "cancelled"),
        (Status::Ended, "ended"),
    ];
    for (status, text) in statuses {
        let expected = format!(r#"{{"id":1,"result":{{"status":"{text}"}}}}"#);
        assert_eq!(result_of(&LockResult::new(status)), expected);
        assert_eq!(encoded(|out| encode_status(out, &raw("1"), status)), expected);
        assert_eq!(serde_json::from_str::<Status>(&format!("\"{text}\"")).unwrap(), status);
    }
}

#[test]
fn every_key_of_a_lock_result_has_its_name() {
    let grant = LockResult { orphaned: true, already: true, holders: Some(2), ..LockResult::granted(7) };
    let deadlock = LockResult {
        circle: Some(vec!["a".to_owned(), "b".to_owned()]),
        ..LockResult::new(Status::Deadlock)
    };
    let invalid = LockResult::from(crate::wire::message::parse_lock(&raw("{}")).unwrap_err());
    let cases = [
        (grant, r#"{"status":"ok","token":7,"orphaned":true,"already":true,"holders":2}"#),
        (deadlock, r#"{"status":"deadlock","circle":["a","b"]}"#),
        (LockResult::refused("a limit"), r#"{"status":"refused","reason":"a limit"}"#),
        (
            LockResult::stopping(),
            r#"{"status":"refused","reason":"the server is stopping","cause":"stopping"}"#,
        ),
        (
            LockResult { cause: Some(Cause::Grace), ..LockResult::refused("later") },
            r#"{"status":"refused","reason":"later","cause":"grace"}"#,
        ),
        (
            LockResult::standby("jobs", Some("b:20934")),
            r#"{"status":"refused","reason":"this server is a standby of the cluster jobs; the active server is b:20934","cause":"standby","active":"b:20934"}"#,
        ),
        (
            LockResult::standby("jobs", None),
            r#"{"status":"refused","reason":"this server is a standby of the cluster jobs","cause":"standby"}"#,
        ),
        (invalid, r#"{"status":"invalid","reason":"lockName is missing"}"#),
    ];
    for (result, json) in cases {
        assert_eq!(result_of(&result), format!(r#"{{"id":1,"result":{json}}}"#));
        assert_eq!(serde_json::from_str::<LockResult>(json).unwrap(), result);
    }
}

#[test]
fn a_client_ignores_the_unknown_keys_of_a_newer_server() {
    let newer = r#"{"status":"ok","weather":[{"sun":1}],"token":1}"#;
    assert_eq!(serde_json::from_str::<LockResult>(newer).unwrap(), LockResult::granted(1));
}

#[test]
fn the_fast_encoder_of_a_grant_writes_the_same_bytes() {
    for (id, token) in
        [("0", 0), ("\"a\\\"b\"", 1), ("-1.5e3", (1 << 53) - 1), ("18446744073709551616", u64::MAX)]
    {
        let id = raw(id);
        let slow = encoded(|out| encode_result(out, &id, &LockResult::granted(token)));
        assert_eq!(encoded(|out| encode_granted(out, &id, token)), slow);
    }
}

#[test]
fn a_result_that_cannot_become_json_is_an_error_with_the_id() {
    let no_json = std::collections::BTreeMap::from([(vec![1], 1)]);
    assert_eq!(
        encoded(|out| encode_result(out, &raw("7"), &no_json)),
        r#"{"id":7,"error":"the result cannot be written as JSON"}"#
    );
}

#[test]
fn old_unlock_replies_are_the_originals() {
    let unlock = |names, is_number| OldUnlockRequest { unlock: UnlockRequest { names }, is_number };
    let one = |name: &[u8]| LockNames::One(LockName::new(name));
    let foo = unlock(one(b"fo\"o"), false);
    let set = unlock(LockNames::Set(vec![LockName::from("a")]), false);
    let bytes = unlock(one(b"a\xff"), false);
    let number = unlock(one(b"-4.20e1"), true);
    let text = unlock(one(b"42"), false);
    let cases = [
        (OldUnlockReply::Ok(&foo), r#"{"attempted":"unlock","result":"ok","lockName":"fo\"o"}"#),
        (OldUnlockReply::NotFound(&foo), r#"{"attempted":"unlock","result":"notFound","lockName":"fo\"o"}"#),
        (OldUnlockReply::Invalid, r#"{"attempted":"unlock","result":"invalid"}"#),
        (OldUnlockReply::Ok(&number), r#"{"attempted":"unlock","result":"ok","lockName":-4.20e1}"#),
        (OldUnlockReply::Ok(&text), r#"{"attempted":"unlock","result":"ok","lockName":"42"}"#),
        (OldUnlockReply::Ok(&set), r#"{"attempted":"unlock","result":"ok","lockNames":["a"]}"#),
        (
            OldUnlockReply::Ok(&bytes),
            r#"{"attempted":"unlock","result":"ok","lockName":"a�","lockNameHex":"61ff"}"#,
        ),
    ];
    for (reply, json) in cases {
        assert_eq!(encoded(|out| reply.encode(out)), json);
    }
}

#[test]
fn unknown_commands_pings_and_errors_are_answered() {
    let id = raw("\"x\"");
    assert_eq!(
        encoded(|out| encode_unknown(out, &id, "do\"it")),
        r#"{"id":"x","result":{"status":"unknown","command":"do\"it"}}"#
    );
    assert_eq!(
        encoded(|out| encode_pong(out, &id, &raw("[1.0, {\"a\":1e2}]"))),
        r#"{"id":"x","result":{"status":"ok","parameters":[1.0, {"a":1e2}]}}"#
    );
    assert_eq!(encoded(|out| encode_error(out, "a \"b\"\n")), r#"{"error":"a \"b\"\n"}"#);
}

#[test]
fn hello_gives_the_keepalive_times_in_seconds() {
    let hello = HelloResult {
        status: Status::Ok,
        server: "lockd".to_owned(),
        version: "0.1.0".to_owned(),
        features: vec!["shared".to_owned()],
        keepalive: Keepalive {
            idle: Duration::from_secs(10),
            interval: Duration::from_secs(5),
            probes: 3,
            user_timeout: Duration::from_millis(24_500),
            dead_peer_timeout: Duration::from_secs(25),
        },
        resume: None,
    };
    let json = concat!(
        r#"{"status":"ok","server":"lockd","version":"0.1.0","features":["shared"],"#,
        r#""keepalive":{"idle":10,"interval":5,"probes":3,"userTimeout":24.5,"deadPeerTimeout":25}}"#
    );
    assert_eq!(serde_json::to_string(&hello).unwrap(), json);
    assert_eq!(serde_json::from_str::<HelloResult>(json).unwrap(), hello);
    let (session, secret) = (ResumeId([1; 16]), ResumeSecret([2; 16]));
    let resumable = HelloResult { resume: Some(ResumeGrant { session, epoch: 7, secret }), ..hello };
    let resume = concat!(
        r#","resume":{"session":"01010101010101010101010101010101","epoch":7,"#,
        r#""secret":"02020202020202020202020202020202"}}"#
    );
    let with_resume = format!("{}{resume}", json.strip_suffix('}').unwrap());
    assert_eq!(serde_json::to_string(&resumable).unwrap(), with_resume);
    assert_eq!(serde_json::from_str::<HelloResult>(&with_resume).unwrap(), resumable);
    assert!(serde_json::from_str::<HelloResult>(&json.replace("\"idle\":10", "\"idle\":-1")).is_err());
}
