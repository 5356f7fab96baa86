use proptest::prelude::*;

use crate::wire::message::requests::*;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn lock(json: &str) -> Result<LockRequest, String> {
    parse_lock(&raw(json)).map_err(|malformed| malformed.to_string())
}

fn one(name: &str, mode: Mode, limit: Option<f64>) -> LockRequest {
    let limit = limit.map(Duration::from_secs_f64);
    LockRequest { names: LockNames::One((LockName::from(name), mode)), limit }
}

fn several(names: &[(&str, Mode)]) -> LockRequest {
    let names = names.iter().map(|&(name, mode)| (LockName::from(name), mode)).collect();
    LockRequest { names: LockNames::Set(names), limit: None }
}

use Mode::{Exclusive, Shared};

#[test]
fn a_lock_request_can_have_one_name() {
    let cases = [
        (r#"{"lockName":"foo"}"#, one("foo", Exclusive, None)),
        (r#" {"lockName" : "" , "other":[[]]} "#, one("", Exclusive, None)),
        (r#"{"lockName":"\u00e4\"","mode":"shared"}"#, one("ä\"", Shared, None)),
        (r#"{"lockName":"foo","mode":null,"timeLimit":null,"lockNames":null}"#, one("foo", Exclusive, None)),
        (r#"{"lockName":"foo","mode":"exclusive","timeLimit":false}"#, one("foo", Exclusive, None)),
        (r#"{"lockName":"foo","timeLimit":0}"#, one("foo", Exclusive, Some(0.0))),
        (r#"{"lockName":"foo","timeLimit":0.25}"#, one("foo", Exclusive, Some(0.25))),
        (r#"{"lockName":"foo","timeLimit":2e1}"#, one("foo", Exclusive, Some(20.0))),
        (r#"{"lockName":"a","lockName":"b"}"#, one("b", Exclusive, None)),
        (r#"{"lockName":42}"#, one("42", Exclusive, None)),
        (r#"{"lockName": -4.20e+1 }"#, one("-4.20e+1", Exclusive, None)),
        (r#"{"lockName":100000000000000000000000}"#, one("100000000000000000000000", Exclusive, None)),
    ];
    for (json, request) in cases {
        assert_eq!(lock(json), Ok(request), "{json}");
    }
}

#[test]
fn a_time_limit_that_does_not_fit_is_the_longest_duration() {
    for limit in ["1e20", "1e999", "99999999999999999999999999"] {
        let request = lock(&format!(r#"{{"lockName":"foo","timeLimit":{limit}}}"#)).unwrap();
        assert_eq!(request.limit, Some(Duration::MAX), "{limit}");
    }
}

#[test]
fn a_lock_request_can_have_several_names() {
    let cases = [
        (r#"{"lockNames":["a","b"]}"#, several(&[("a", Exclusive), ("b", Exclusive)])),
        (r#"{"lockNames":["a"]}"#, several(&[("a", Exclusive)])),
        (r#"{"lockNames":[1,{"lockName":2,"mode":"shared"}]}"#, several(&[("1", Exclusive), ("2", Shared)])),
        (
            r#"{"lockNames":["a",{"lockName":"b"},{"lockName":"c","mode":"exclusive"}],"mode":"shared"}"#,
            several(&[("a", Shared), ("b", Shared), ("c", Exclusive)]),
        ),
    ];
    for (json, request) in cases {
        assert_eq!(lock(json), Ok(request), "{json}");
    }
}

#[test]
fn a_malformed_lock_request_is_refused_with_a_reason() {
    let cases = [
        ("{}", "lockName is missing"),
        ("[]", "lockName is missing"),
        ("[ ]", "lockName is missing"),
        ("[1]", "parameters are not an object"),
        ("\"foo\"", "parameters are not an object"),
        (r#"{"lockName":null}"#, "lockName is missing"),
        (r#"{"lockName":true}"#, "lockName is neither a string nor a number"),
        (r#"{"lockName":["foo"]}"#, "lockName is neither a string nor a number"),
        (r#"{"lockName":"\ud800"}"#, "lockName is neither a string nor a number"),
        (r#"{"lockNameHex":"abc"}"#, "lockNameHex is not hexadecimal"),
        (r#"{"lockName":"foo","mode":"both"}"#, "mode is neither exclusive nor shared"),
        (r#"{"lockName":"foo","mode":1}"#, "mode is not a string"),
        (r#"{"lockName":"foo","lockNames":["bar"]}"#, "lockNames stands beside lockName"),
        (r#"{"lockNames":[]}"#, "lockNames is empty"),
        (r#"{"lockNames":"foo"}"#, "lockNames is not an array"),
        (r#"{"lockNames":["a","b","a"]}"#, "lockNames has a name twice"),
        (r#"{"lockNames":["a",{"lockName":"a","mode":"shared"}]}"#, "lockNames has a name twice"),
        (r#"{"lockNames":["1",1]}"#, "lockNames has a name twice"),
        (r#"{"lockNames":["a",true]}"#, "lockNames has an entry that is neither a name nor an object"),
        (r#"{"lockNames":["a",null]}"#, "lockNames has an entry that is neither a name nor an object"),
        (r#"{"lockNames":[{"mode":"shared"}]}"#, "lockName is missing"),
        (r#"{"lockNames":[{"lockName":"a","mode":""}]}"#, "mode is neither exclusive nor shared"),
    ];
    for (json, reason) in cases {
        assert_eq!(lock(json), Err(reason.to_owned()), "{json}");
    }
    for limit in ["true", "-1", "-0.001", "\"1\"", "[]", "{}"] {
        let reason = "timeLimit is neither a number from 0 up nor false".to_owned();
        assert_eq!(lock(&format!(r#"{{"lockName":"foo","timeLimit":{limit}}}"#)), Err(reason), "{limit}");
    }
}

#[test]
fn an_unlock_is_read_from_parameters_or_from_the_body() {
    let one = |name: &str| UnlockRequest { names: LockNames::One(LockName::from(name)) };
    let foo = one("foo");
    assert_eq!(parse_unlock(&raw(r#"{"lockName":"foo"}"#)), Ok(foo.clone()));
    let old =
        |unlock: &UnlockRequest, is_number| Ok(Some(OldUnlockRequest { unlock: unlock.clone(), is_number }));
    assert_eq!(parse_old_unlock(r#"{"command":"unlock","lockName":"foo"}"#), old(&foo, false));
    let number = one("4.20");
    assert_eq!(parse_old_unlock(r#"{"command":"unlock","lockName":4.20}"#), old(&number, true));
    assert_eq!(parse_old_unlock(r#"{"lockName":1,"lockNameHex":"342e3230"}"#), old(&number, false));
    let set = UnlockRequest { names: LockNames::Set(vec![LockName::from("a"), LockName::from("b")]) };
    assert_eq!(parse_unlock(&raw(r#"{"lockNames":["a",{"lockName":"b","mode":"shared"}]}"#)), Ok(set));
    assert_eq!(parse_old_unlock(r#"{"command":"unlock","parameters":{"lockName":"foo"}}"#), Ok(None));
    assert!(parse_old_unlock(r#"{"command":"unlock","lockName":[]}"#).is_err());
    assert_eq!(
        parse_unlock(&raw(r#"{"lockName":false}"#)).unwrap_err().to_string(),
        "lockName is neither a string nor a number"
    );
}

#[test]
fn a_conversion_must_have_a_mode() {
    let request = ConvertRequest {
        name: LockName::from("foo"),
        mode: Shared,
        limit: Some(Duration::from_millis(1500)),
    };
    assert_eq!(parse_convert(&raw(r#"{"lockName":"foo","mode":"shared","timeLimit":1.5}"#)), Ok(request));
    let reason = |json| parse_convert(&raw(json)).unwrap_err().to_string();
    assert_eq!(reason(r#"{"lockName":"foo"}"#), "mode is missing");
    assert_eq!(reason(r#"{"mode":"shared"}"#), "lockName is missing");
}

#[test]
fn an_inspection_must_have_a_name() {
    let request = InspectRequest { name: LockName::from("foo") };
    assert_eq!(parse_inspect(&raw(r#"{"lockName":"foo"}"#)), Ok(request));
    assert_eq!(parse_inspect(&raw("{}")), Err(NAME_MISSING));
}

#[test]
fn a_list_has_defaults_and_bounds() {
    let list = |json: &str| parse_list(&raw(json));
    let all = ListRequest { prefix: LockName::from(""), limit: 100, after: None, waiting: false };
    for json in ["{}", "[]", r#"{"prefix":"","limit":100,"after":null,"waiting":null}"#] {
        assert_eq!(list(json), Ok(all.clone()), "{json}");
    }
    for (limit, clamped) in [(-5, 1), (0, 1), (1, 1), (1000, 1000), (1001, 1000), (i64::MAX, 1000)] {
        assert_eq!(list(&format!(r#"{{"limit":{limit}}}"#)).unwrap().limit, clamped, "{limit}");
    }
    let page = ListRequest {
        prefix: LockName::from("a"),
        limit: 7,
        after: Some(LockName::new(b"a\xff")),
        waiting: false,
    };
    assert_eq!(list(r#"{"prefix":"a","limit":7,"after":"a?","afterHex":"61FF"}"#), Ok(page.clone()));
    assert_eq!(list(r#"{"prefixHex":"61","limit":7,"afterHex":"61ff"}"#), Ok(page));
    for (json, reason) in [
        (r#"{"limit":"7"}"#, "limit is not a whole number"),
        (r#"{"limit":1.5}"#, "limit is not a whole number"),
        (r#"{"prefix":true}"#, "prefix is neither a string nor a number"),
        (r#"{"after":[]}"#, "after is neither a string nor a number"),
        (r#"{"afterHex":"x"}"#, "afterHex is not hexadecimal"),
        (r#"{"waiting":1}"#, "waiting is neither true nor false"),
    ] {
        assert_eq!(list(json).unwrap_err().to_string(), reason, "{json}");
    }
}

#[test]
fn the_texts_of_identify_and_hello_are_strings() {
    let identify = |json: &str| parse_identify(&raw(json)).map(|request| request.name);
    assert_eq!(identify(r#"{"name":"b\u00f6b"}"#), Ok(Some("böb".to_owned())));
    for nameless in ["{}", "[]", r#"{"name":null}"#, r#"{"name":""}"#] {
        assert_eq!(identify(nameless), Ok(None), "{nameless}");
    }
    assert_eq!(identify(r#"{"name":1}"#).unwrap_err().to_string(), "name is not a string");
    let wind_down = Duration::ZERO;
    let hello = HelloRequest {
        client: Some("c".to_owned()),
        version: None,
        auth_token: None,
        wind_down,
        resumable: false,
    };
    assert_eq!(parse_hello(&raw(r#"{"client":"c"}"#)), Ok(hello.clone()));
    let hello = HelloRequest { wind_down: Duration::from_millis(5500), ..hello };
    assert_eq!(parse_hello(&raw(r#"{"client":"c","windDown":5.5}"#)), Ok(hello.clone()));
    let hello = HelloRequest { resumable: true, wind_down: Duration::ZERO, ..hello };
    assert_eq!(parse_hello(&raw(r#"{"client":"c","resumable":true}"#)), Ok(hello.clone()));
    assert_eq!(written(&hello).get(), r#"{"client":"c","resumable":true}"#);
    let error = parse_hello(&raw(r#"{"resumable":1}"#)).unwrap_err();
    assert_eq!(error.to_string(), "resumable is neither true nor false");
    for bad in ["-1", "3600.5", "\"5\""] {
        let error = parse_hello(&raw(&format!(r#"{{"windDown":{bad}}}"#))).unwrap_err();
        assert_eq!(error.to_string(), "windDown is not a number from 0 to 3600");
    }
    assert_eq!(parse_hello(&raw(r#"{"version":2}"#)).unwrap_err().to_string(), "version is not a string");
}

/// A recursive reader would overflow the stack of a connection's thread, as in the envelope's test.
#[test]
fn deep_nesting_needs_no_stack() {
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let json = ["lockName", "lockNames", "mode", "timeLimit", "x"]
        .map(|key| format!(r#"{{"lockName":"foo","{key}":{deep}}}"#));
    let entry = format!(r#"{{"lockNames":["a",{deep}]}}"#);
    let read = move || {
        [json.map(|json| lock(&json).is_ok()).to_vec(), vec![lock(&entry).is_ok(), lock(&deep).is_ok()]]
    };
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(read).unwrap();
    assert_eq!(thread.join().unwrap().concat(), [false, false, false, false, true, false, false]);
}

fn written(request: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(request).unwrap()
}

#[test]
fn a_request_is_written_in_its_shortest_form() {
    let request = one("foo", Shared, Some(2.0));
    assert_eq!(written(&request).get(), r#"{"lockName":"foo","mode":"shared","timeLimit":2}"#);
    let request = several(&[("foo", Shared)]);
    assert_eq!(written(&request).get(), r#"{"lockNames":[{"lockName":"foo","mode":"shared"}]}"#);
    let bytes = InspectRequest { name: LockName::new(b"\xff") };
    assert_eq!(written(&bytes).get(), r#"{"lockNameHex":"ff"}"#);
    assert_eq!(written(&IdentifyRequest { name: None }).get(), "{}");
}

fn any_name() -> impl Strategy<Value = LockName> {
    prop_oneof![
        ".{0,12}".prop_map(|name| LockName::from(name.as_str())),
        any::<Vec<u8>>().prop_map(|name| LockName::new(&name))
    ]
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Exclusive), Just(Shared)]
}

/// Multiples of an eighth of a second, which an `f64` represents exactly. Other fractions may
/// change by a nanosecond.
fn any_limit() -> impl Strategy<Value = Option<Duration>> {
    let eighths = (0..1_u64 << 40).prop_map(|eighths| Duration::from_millis(eighths * 125));
    proptest::option::of(prop_oneof![eighths, Just(Duration::MAX)])
}

proptest! {
    #[test]
    fn a_request_that_a_client_writes_is_read_unchanged(
        names in proptest::collection::btree_map(any_name(), any_mode(), 1..5),
        set: bool,
        limit in any_limit(),
        (page_limit, after) in (1_usize..=1000, proptest::option::of(any_name())),
        text in proptest::option::of(".{1,12}"),
    ) {
        let (name, mode) = names.first_key_value().map(|(name, mode)| (name.clone(), *mode)).unwrap();
        let set = set || names.len() > 1;
        let unlocked =
            if set { LockNames::Set(names.keys().cloned().collect()) } else { LockNames::One(name.clone()) };
        let unlock = UnlockRequest { names: unlocked };
        prop_assert_eq!(parse_unlock(&written(&unlock)), Ok(unlock));
        let locked =
            if set { LockNames::Set(names.into_iter().collect()) } else { LockNames::One((name.clone(), mode)) };
        let lock = LockRequest { names: locked, limit };
        prop_assert_eq!(parse_lock(&written(&lock)), Ok(lock));
        let convert = ConvertRequest { name: name.clone(), mode, limit };
        prop_assert_eq!(parse_convert(&written(&convert)), Ok(convert));
        let inspect = InspectRequest { name: name.clone() };
        prop_assert_eq!(parse_inspect(&written(&inspect)), Ok(inspect));
        let list = ListRequest { prefix: name, limit: page_limit, after, waiting: set };
        prop_assert_eq!(parse_list(&written(&list)), Ok(list));
        let wind_down = Duration::from_secs(page_limit as u64);
        let (client, version, auth_token) = (text.clone(), text.clone(), text.clone());
        let hello = HelloRequest { client, version, auth_token, wind_down, resumable: set };
        prop_assert_eq!(parse_hello(&written(&hello)), Ok(hello));
        let identify = IdentifyRequest { name: text };
        prop_assert_eq!(parse_identify(&written(&identify)), Ok(identify));
    }

    #[test]
    fn any_parameters_are_refused_or_valid(
        key in "lockName|lockNames|lockNameHex|mode|timeLimit|limit|prefixHex|name|client",
        value in "[\\[\\]{}\":,0-9a-f.\\-eE\\\\u]{0,20}|true|false|null|\"[a-f0-9]*\"|-?[0-9]{1,30}",
    ) {
        let Ok(json) = RawValue::from_string(format!(r#"{{"{key}":{value}}}"#)) else { return Ok(()) };
        if let Ok(lock) = parse_lock(&json) {
            prop_assert!(!lock.names.as_slice().is_empty());
        }
        if let Ok(list) = parse_list(&json) {
            prop_assert!((1..=1000).contains(&list.limit));
        }
        prop_assert_eq!(parse_unlock(&json).is_err(), parse_lock(&json).is_err());
        let named = parse_inspect(&json).is_ok();
        prop_assert_eq!(named, key.starts_with("lockName") && key != "lockNames" && parse_lock(&json).is_ok());
    }
}

#[test]
fn a_kick_needs_either_an_address_or_a_name() {
    let kick = |address: Option<&str>, name: Option<&str>| KickRequest {
        address: address.map(str::to_owned),
        name: name.map(str::to_owned),
    };
    for request in [kick(Some("unix:3"), None), kick(None, Some("bob"))] {
        let written = serde_json::value::to_raw_value(&request).unwrap();
        assert_eq!(parse_kick(&written), Ok(request));
    }
    for malformed in ["{}", "null", r#"{"address":1}"#, r#"{"address":"a","name":"b"}"#] {
        let parameters: Box<RawValue> = serde_json::from_str(malformed).unwrap();
        assert!(parse_kick(&parameters).is_err(), "{malformed}");
    }
}
