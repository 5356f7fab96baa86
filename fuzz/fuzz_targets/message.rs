//! The codec of the `message` protocol: frames are cut anywhere, bodies are read as requests and as
//! replies, and the results are written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockd::wire::frame;
use lockd::wire::message::{
    HelloResult, InspectResult, ListResult, LockNames, LockResult, OldUnlockReply, OldUnlockRequest,
    RequestEnvelope, encode_error, encode_granted, encode_pong, encode_request, encode_result,
    encode_unknown, parse, parse_cancel, parse_convert, parse_hello, parse_identify, parse_inspect,
    parse_list, parse_lock, parse_old_unlock, parse_reply, parse_resume, parse_unlock,
};
use lockd_fuzz::pieces::Case;
use lockd_fuzz::{made_json, naive_json, reading};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// A bit of the limit: each line of the stream chooses the parts of which its body is made.
const MADE: u8 = 0x40;

const MESSAGE_MAX: [usize; 6] = [1 << 20, 0, 1, 30, 300, 16 << 20];

fuzz_target!(|data: &[u8]| {
    let Some(mut case) = Case::read(data) else { return };
    if !case.flag {
        // Each line is a body, so that a mutation of a body need not update its length.
        let lines = case.stream.split(|&byte| byte == b'\n');
        case.stream = match case.limit & MADE != 0 {
            true => framed(lines.map(made_json::body)),
            false => framed(lines),
        };
    }
    let message_max = MESSAGE_MAX[usize::from(case.limit & !MADE) % MESSAGE_MAX.len()];
    let ways = case.ways();
    let whole = reading::frames(&ways[0], message_max);
    for way in &ways[1..] {
        assert_eq!(reading::frames(way, message_max), whole, "it matters how the stream was cut");
    }
    if let Some(long) = case.long() {
        check_long(&long, message_max);
    }
    let bodies: Vec<&[u8]> = whole.found.iter().flatten().map(Vec::as_slice).collect();
    let again = framed(bodies.iter().copied());
    assert!(case.stream.starts_with(&again), "the encoded messages differ from the stream");
    for body in bodies {
        check_request(body);
        check_reply(body);
    }
});

fn framed(bodies: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut out = Vec::new();
    bodies.for_each(|body| frame::encode(&mut out, |out| out.extend_from_slice(body.as_ref())));
    out
}

/// Reads a long stream, as messages and as one long array of names. If this takes more than linear
/// time, it exceeds the time limit.
fn check_long(long: &[u8], message_max: usize) {
    for body in reading::frames(&[long], message_max).found.iter().flatten() {
        let _ = parse(body);
    }
    let names: Vec<String> = long.chunks(5).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let parameters = serde_json::to_string(&serde_json::json!({ "lockNames": names })).expect("plain JSON");
    let parameters = RawValue::from_string(parameters).expect("JSON");
    let _ = (parse_lock(&parameters), parse_unlock(&parameters));
}

fn check_request(body: &[u8]) {
    let whole = naive_json::value(body);
    let envelope = match parse(body) {
        Ok(envelope) => envelope,
        Err(bad) => {
            let is_object = whole.is_some_and(|value| value.is_object());
            assert!(!is_object, "{bad}: {}", body.escape_ascii());
            return check_error(&bad.to_string());
        }
    };
    let is_json = serde_json::from_slice::<&RawValue>(body).is_ok();
    assert!(is_json, "what is not JSON was accepted: {}", body.escape_ascii());
    if let Some(whole) = &whole {
        check_envelope(&envelope, whole);
    }
    let parameters = envelope.parameters.unwrap_or(RawValue::NULL);
    let is_naive = |value: &Value| !naive_json::has_number_for_a_name(value);
    let value = naive_json::value(parameters.get().as_bytes()).filter(is_naive);
    check_lock_commands(parameters, value.as_ref());
    check_other_commands(parameters, value.as_ref());
    let old = parse_old_unlock(envelope.body).ok().flatten();
    if let Some(whole) = whole.as_ref().filter(|whole| is_naive(whole)) {
        let expected = naive_json::unlock(whole);
        assert_eq!(old.clone().map(|request| request.unlock.names), expected);
    }
    check_old_unlock(old.as_ref());
    if let Some(id) = envelope.id {
        check_replies(id, &envelope, parameters);
    }
}

fn check_envelope(envelope: &RequestEnvelope<'_>, whole: &Value) {
    let get = |key| whole.get(key).filter(|value: &&Value| !value.is_null());
    assert_eq!(envelope.command.as_deref(), get("command").and_then(Value::as_str));
    let id = get("id").filter(|id| id.is_number() || id.is_string());
    assert_eq!(envelope.id.and_then(|id| serde_json::from_str(id.get()).ok()).as_ref(), id);
    let parameters = envelope.parameters.and_then(|raw| serde_json::from_str(raw.get()).ok());
    assert_eq!(parameters.as_ref(), get("parameters"));
}

fn check_lock_commands(parameters: &RawValue, value: Option<&Value>) {
    let (lock, unlock, convert) =
        (parse_lock(parameters), parse_unlock(parameters), parse_convert(parameters));
    if let Some(value) = value {
        let expected = naive_json::lock(value);
        match (&lock, &expected) {
            (Ok(lock), Some(expected)) => {
                assert_eq!(lock.names, expected.names);
                assert!(naive_json::are_close(lock.limit, expected.limit), "{lock:?} {expected:?}");
            }
            _ => assert_eq!(lock.is_ok(), expected.is_some(), "{lock:?} {expected:?}"),
        }
        let read = unlock.clone().ok().map(|request| request.names);
        assert_eq!(read, naive_json::unlock(value));
        match (&convert, naive_json::convert(value)) {
            (Ok(convert), Some((name, mode, limit))) => {
                assert_eq!((&convert.name, convert.mode), (&name, mode));
                assert!(naive_json::are_close(convert.limit, limit), "{convert:?} {limit:?}");
            }
            (convert, expected) => {
                assert_eq!(convert.is_ok(), expected.is_some(), "{convert:?} {expected:?}")
            }
        }
    }
    if let Ok(lock) = &lock {
        assert!(!lock.names.as_slice().is_empty());
        assert_eq!(parse_lock(&sent("lock", lock)).as_ref(), Ok(lock));
    }
    if let Ok(unlock) = &unlock {
        assert_eq!(parse_unlock(&sent("unlock", unlock)).as_ref(), Ok(unlock));
    }
    if let Ok(convert) = &convert {
        assert_eq!(parse_convert(&sent("convert", convert)).as_ref(), Ok(convert));
    }
}

fn check_other_commands(parameters: &RawValue, value: Option<&Value>) {
    let (inspect, list) = (parse_inspect(parameters), parse_list(parameters));
    if let Some(value) = value {
        assert_eq!(inspect.clone().ok().map(|request| request.name), naive_json::inspect(value));
        // Only one of the readers accepts a zero with a sign as a whole number.
        if !parameters.get().contains("-0") {
            let read = list.clone().ok().map(|request| (request.prefix, request.limit, request.after));
            assert_eq!(read, naive_json::list(value));
        }
    }
    if let Ok(inspect) = &inspect {
        assert_eq!(parse_inspect(&sent("inspect", inspect)).as_ref(), Ok(inspect));
    }
    if let Ok(list) = &list {
        assert!((1..=1000).contains(&list.limit));
        assert_eq!(parse_list(&sent("list", list)).as_ref(), Ok(list));
    }
    if let Ok(identify) = parse_identify(parameters) {
        assert_eq!(parse_identify(&sent("identify", &identify)), Ok(identify));
    }
    if let Ok(hello) = parse_hello(parameters) {
        assert_eq!(parse_hello(&sent("hello", &hello)), Ok(hello));
    }
    if let Ok(resume) = parse_resume(parameters) {
        assert_eq!(parse_resume(&sent("resume", &resume)), Ok(resume));
    }
    if let Ok(cancel) = parse_cancel(parameters) {
        let again = sent("cancel", &cancel);
        let again = parse_cancel(&again).expect("it has been read before");
        assert_eq!(again.id.get(), cancel.id.get());
    }
}

/// The parameters that a server reads from a request that a client has written.
fn sent(command: &str, parameters: &impl Serialize) -> Box<RawValue> {
    let mut body = Vec::new();
    encode_request(&mut body, 7, command, parameters).expect("a request becomes JSON");
    let envelope = parse(&body).expect("a request is a message");
    assert_eq!((envelope.command.as_deref(), envelope.id.map(RawValue::get)), (Some(command), Some("7")));
    envelope.parameters.expect("there are parameters").to_owned()
}

fn check_replies(id: &RawValue, envelope: &RequestEnvelope<'_>, parameters: &RawValue) {
    let result = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        let reply = parse_reply(&out).expect("a reply is a message");
        assert_eq!(reply.id.map(RawValue::get), Some(id.get()), "the id is not repeated byte for byte");
        assert!(reply.error.is_none());
        reply.result.expect("there is a result").to_owned()
    };
    let command = envelope.command.as_deref().unwrap_or_default();
    let unknown: Value =
        serde_json::from_str(result(&|out| encode_unknown(out, id, command)).get()).expect("plain JSON");
    assert_eq!(unknown.get("command").and_then(Value::as_str), Some(command));
    let pong = result(&|out| encode_pong(out, id, parameters));
    assert!(pong.get().contains(parameters.get()), "a ping's parameters are not repeated byte for byte");
    let token = command.len() as u64;
    let granted: LockResult =
        serde_json::from_str(result(&|out| encode_granted(out, id, token)).get()).expect("a result");
    assert_eq!(granted, LockResult::granted(token));
}

fn check_error(text: &str) {
    let mut out = Vec::new();
    encode_error(&mut out, text);
    assert_eq!(parse_reply(&out).expect("a message").error.as_deref(), Some(text));
}

fn check_old_unlock(request: Option<&OldUnlockRequest>) {
    let replies = match request {
        Some(request) => vec![OldUnlockReply::Ok(request), OldUnlockReply::NotFound(request)],
        None => vec![OldUnlockReply::Invalid],
    };
    for reply in replies {
        let mut out = Vec::new();
        reply.encode(&mut out);
        let read = parse_reply(&out).expect("a message");
        assert!(read.id.is_none() && read.result.is_some());
        // The exact name is repeated even if it is not UTF-8.
        let back = parse_old_unlock(str::from_utf8(&out).expect("JSON is text"));
        if let Some(request) = request.filter(|request| matches!(request.unlock.names, LockNames::One(_))) {
            assert_eq!(back.as_ref(), Ok(&Some(request.clone())));
        }
    }
}

/// Reads the body as a client does.
fn check_reply(body: &[u8]) {
    let Ok(reply) = parse_reply(body) else { return };
    let Some(result) = reply.result else { return };
    let same = |one: &LockResult, other: &LockResult| assert_eq!(one, other);
    check_result::<LockResult>(result, same);
    check_result::<InspectResult>(result, |one, other| assert_eq!(one, other));
    check_result::<HelloResult>(result, |one, other| {
        assert_eq!((one.status, &one.server, &one.version), (other.status, &other.server, &other.version));
        assert_eq!(one.features, other.features);
    });
    check_result::<ListResult>(result, |one, other| {
        assert_eq!((one.status, one.more, one.locks.len()), (other.status, other.more, other.locks.len()));
        for (lock, again) in one.locks.iter().zip(&other.locks) {
            assert_eq!((lock.name(), lock.mode), (again.name(), again.mode));
            assert_eq!((lock.holders.len(), lock.waiters.len()), (again.holders.len(), again.waiters.len()));
            let tokens = lock.holders.iter().zip(&again.holders);
            assert!(tokens.into_iter().all(|(one, other)| one.token == other.token));
        }
    });
}

/// A result that can be read can be written and read again.
fn check_result<R: DeserializeOwned + Serialize>(result: &RawValue, assert_same: impl Fn(&R, &R)) {
    let Ok(read) = serde_json::from_str::<R>(result.get()) else { return };
    let id = RawValue::from_string("1".to_owned()).expect("a number");
    let mut out = Vec::new();
    encode_result(&mut out, &id, &read);
    let reply = parse_reply(&out).expect("a reply is a message");
    let again =
        serde_json::from_str::<R>(reply.result.expect("a result").get()).expect("it has been read before");
    assert_same(&read, &again);
}
