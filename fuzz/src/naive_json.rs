//! A second, simple reader of the lock commands' parameters, written from `docs/protocol.md`. It
//! reads whole JSON values. Some text is accepted by only one of the two readers (lone surrogates
//! in parts that the real one skips, numbers that are too large, deep nesting); it is `None` here.

use std::collections::HashSet;
use std::time::Duration;

use lockd::broker::{LockName, Mode};
use lockd::wire::message::LockNames;
use serde_json::{Map, Value};

/// A body read as a whole.
#[must_use]
pub fn value(body: &[u8]) -> Option<Value> {
    // A key with a special meaning to serde_json when it reads values.
    let own = b"$serde_json::private";
    if body.windows(own.len()).any(|window| window == own) || body.contains(&b'\\') && escapes_a_dollar(body)
    {
        return None;
    }
    serde_json::from_slice(body).ok()
}

fn escapes_a_dollar(body: &[u8]) -> bool {
    body.windows(6).any(|window| window.eq_ignore_ascii_case(b"\\u0024"))
}

/// The parameters of `lock`.
#[derive(Debug, PartialEq)]
pub struct Lock {
    /// The names and modes.
    pub names: LockNames<(LockName, Mode)>,
    /// The time limit in seconds; `None` is without limit.
    pub limit: Option<f64>,
}

/// The parameters as an object; `None` if they are not one.
fn object(parameters: &Value) -> Option<Map<String, Value>> {
    match parameters {
        Value::Null => Some(Map::new()),
        Value::Array(items) if items.is_empty() => Some(Map::new()),
        Value::Object(map) => Some(map.clone()),
        _ => None,
    }
}

fn get<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

/// The parameters of `lock`; `None` if they are malformed.
#[must_use]
pub fn lock(parameters: &Value) -> Option<Lock> {
    let map = object(parameters)?;
    let mode = mode(&map)?.unwrap_or(Mode::Exclusive);
    let limit = limit(&map)?;
    Some(Lock { names: names(&map, mode)?, limit })
}

/// Whether a name may be written as a number. A [`Value`] does not keep the text of a number, which
/// is the name.
#[must_use]
pub fn has_number_for_a_name(value: &Value) -> bool {
    let is_in = |map: &Map<String, Value>| {
        ["lockName", "prefix", "after"].iter().any(|key| map.get(*key).is_some_and(Value::is_number))
    };
    let Value::Object(map) = value else { return false };
    let entries = map.get("lockNames").and_then(Value::as_array);
    is_in(map)
        || entries.is_some_and(|entries| {
            entries.iter().any(|entry| entry.is_number() || entry.as_object().is_some_and(is_in))
        })
}

/// The parameters of `unlock`: the names. `None` if they are malformed.
#[must_use]
pub fn unlock(parameters: &Value) -> Option<LockNames<LockName>> {
    Some(match names(&object(parameters)?, Mode::Exclusive)? {
        LockNames::One((name, _)) => LockNames::One(name),
        LockNames::Set(names) => LockNames::Set(names.into_iter().map(|(name, _)| name).collect()),
    })
}

/// The parameters of `convert`: the name, the mode, and the time limit in seconds. `None` if they
/// are malformed.
#[must_use]
pub fn convert(parameters: &Value) -> Option<(LockName, Mode, Option<f64>)> {
    let map = object(parameters)?;
    Some((name(&map, "lockName", "lockNameHex")??, mode(&map)??, limit(&map)?))
}

/// The parameter of `inspect`: the name. `None` if it is malformed.
#[must_use]
pub fn inspect(parameters: &Value) -> Option<LockName> {
    name(&object(parameters)?, "lockName", "lockNameHex")?
}

/// The parameters of `list`: prefix, limit, after. `None` if they are malformed.
#[must_use]
pub fn list(parameters: &Value) -> Option<(LockName, usize, Option<LockName>)> {
    let map = object(parameters)?;
    let limit = match get(&map, "limit") {
        None => 100,
        // A number with a fraction of zero is not a whole number here.
        Some(number @ Value::Number(_)) => number.as_i64()?,
        Some(_) => return None,
    };
    if !matches!(get(&map, "waiting"), None | Some(Value::Bool(_))) {
        return None;
    }
    let prefix = name(&map, "prefix", "prefixHex")?.unwrap_or(LockName::new(b""));
    Some((prefix, limit.clamp(1, 1000) as usize, name(&map, "after", "afterHex")?))
}

/// The text at `key`. The outer `None` if the value is not a string.
#[must_use]
pub fn text(map: &Map<String, Value>, key: &str) -> Option<Option<String>> {
    match get(map, key) {
        None => Some(None),
        Some(Value::String(text)) => Some(Some(text.clone())),
        Some(_) => None,
    }
}

fn name(map: &Map<String, Value>, key: &str, hex: &str) -> Option<Option<LockName>> {
    if let Some(hex) = text(map, hex)? {
        return from_hex(&hex).map(Some);
    }
    Some(text(map, key)?.map(|text| LockName::from(text.as_str())))
}

fn from_hex(text: &str) -> Option<LockName> {
    if text.len() % 2 == 1 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    Some(LockName::new(&bytes?))
}

/// The mode that `mode` and `limit` say; the inner `None` if there is neither.
fn mode(map: &Map<String, Value>) -> Option<Option<Mode>> {
    let mode = match text(map, "mode")?.as_deref() {
        None => None,
        Some("exclusive") => Some(Mode::Exclusive),
        Some("shared") => Some(Mode::Shared),
        Some(_) => return None,
    };
    match (get(map, "limit"), mode) {
        (None, mode) => Some(mode),
        (Some(_), Some(Mode::Shared)) => None,
        (Some(limit), _) => Mode::at_most(u32::try_from(limit.as_u64()?).ok()?).map(Some),
    }
}

fn limit(map: &Map<String, Value>) -> Option<Option<f64>> {
    match get(map, "timeLimit") {
        None | Some(Value::Bool(false)) => Some(None),
        Some(Value::Number(number)) => number.as_f64().filter(|&seconds| seconds >= 0.0).map(Some),
        Some(_) => None,
    }
}

fn names(map: &Map<String, Value>, mode: Mode) -> Option<LockNames<(LockName, Mode)>> {
    let one = name(map, "lockName", "lockNameHex")?;
    match (one, get(map, "lockNames")) {
        (Some(name), None) => Some(LockNames::One((name, mode))),
        (None, Some(Value::Array(entries))) => {
            let names: Option<Vec<_>> = entries.iter().map(|entry| self::entry(entry, mode)).collect();
            let names = names?;
            let distinct: HashSet<_> = names.iter().map(|(name, _)| name.clone()).collect();
            (!names.is_empty() && distinct.len() == names.len()).then_some(LockNames::Set(names))
        }
        _ => None,
    }
}

fn entry(entry: &Value, default: Mode) -> Option<(LockName, Mode)> {
    match entry {
        Value::String(text) => Some((LockName::from(text.as_str()), default)),
        Value::Object(map) => Some((name(map, "lockName", "lockNameHex")??, mode(map)?.unwrap_or(default))),
        _ => None,
    }
}

/// Whether two limits are equal except for the last digits, in which readers of numbers may differ.
#[must_use]
pub fn are_close(read: Option<Duration>, expected: Option<f64>) -> bool {
    let (Some(read), Some(expected)) = (read, expected) else { return read.is_none() && expected.is_none() };
    let expected = Duration::try_from_secs_f64(expected).unwrap_or(Duration::MAX);
    let off = read.abs_diff(expected).as_secs_f64();
    off <= 2e-9 || off <= read.as_secs_f64() * 1e-12
}
