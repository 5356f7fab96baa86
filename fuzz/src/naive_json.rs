//! The parameters of the lock commands read from a whole JSON value, from their description in
//! `docs/protocol.md`. Says nothing about what only one of two readers of JSON takes (lone surrogates where
//! nobody looks, numbers beyond all bounds, great depth): such text is `None`.

use std::collections::HashSet;
use std::time::Duration;

use lockd::broker::{LockName, Mode};
use serde_json::{Map, Value};

/// What a whole reader makes of a body.
#[must_use]
pub fn value(body: &[u8]) -> Option<Value> {
    // A key by which serde_json tells itself something when it reads values.
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

/// A lock request: names, whether they are a set, and the limit in seconds.
#[derive(Debug, PartialEq)]
pub struct Lock {
    /// The names and modes.
    pub names: Vec<(LockName, Mode)>,
    /// Whether they came as `lockNames`.
    pub set: bool,
    /// `None` is without limit.
    pub limit: Option<f64>,
}

/// The parameters as an object; `None` if they are none.
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

/// `lock`, as it should be read; `None` if it is malformed.
#[must_use]
pub fn lock(parameters: &Value) -> Option<Lock> {
    let map = object(parameters)?;
    let mode = mode(&map)?.unwrap_or(Mode::Exclusive);
    let limit = limit(&map)?;
    let (names, set) = names(&map, mode)?;
    Some(Lock { names, set, limit })
}

/// Whether a number may stand for a name there. Its text, which is the name, is lost in a [`Value`].
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

/// `unlock`, as it should be read.
#[must_use]
pub fn unlock(parameters: &Value) -> Option<(Vec<LockName>, bool)> {
    let (names, set) = names(&object(parameters)?, Mode::Exclusive)?;
    Some((names.into_iter().map(|(name, _)| name).collect(), set))
}

/// `convert`, as it should be read.
#[must_use]
pub fn convert(parameters: &Value) -> Option<(LockName, Mode, Option<f64>)> {
    let map = object(parameters)?;
    Some((name(&map, "lockName", "lockNameHex")??, mode(&map)??, limit(&map)?))
}

/// `inspect`, as it should be read.
#[must_use]
pub fn inspect(parameters: &Value) -> Option<LockName> {
    name(&object(parameters)?, "lockName", "lockNameHex")?
}

/// `list`, as it should be read: prefix, limit, after.
#[must_use]
pub fn list(parameters: &Value) -> Option<(LockName, usize, Option<LockName>)> {
    let map = object(parameters)?;
    let limit = match get(&map, "limit") {
        None => 100,
        // Text tells a whole number from one with a fraction of zero.
        Some(number @ Value::Number(_)) => number.as_i64()?,
        Some(_) => return None,
    };
    let prefix = name(&map, "prefix", "prefixHex")?.unwrap_or(LockName::new(b""));
    Some((prefix, limit.clamp(1, 1000) as usize, name(&map, "after", "afterHex")?))
}

/// A text under `key`: the outer `None` if it is something else.
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

fn mode(map: &Map<String, Value>) -> Option<Option<Mode>> {
    Some(match text(map, "mode")?.as_deref() {
        None => None,
        Some("exclusive") => Some(Mode::Exclusive),
        Some("shared") => Some(Mode::Shared),
        Some(_) => return None,
    })
}

fn limit(map: &Map<String, Value>) -> Option<Option<f64>> {
    match get(map, "timeLimit") {
        None | Some(Value::Bool(false)) => Some(None),
        Some(Value::Number(number)) => number.as_f64().filter(|&seconds| seconds >= 0.0).map(Some),
        Some(_) => None,
    }
}

fn names(map: &Map<String, Value>, mode: Mode) -> Option<(Vec<(LockName, Mode)>, bool)> {
    let one = name(map, "lockName", "lockNameHex")?;
    match (one, get(map, "lockNames")) {
        (Some(name), None) => Some((vec![(name, mode)], false)),
        (None, Some(Value::Array(entries))) => {
            let names: Option<Vec<_>> = entries.iter().map(|entry| self::entry(entry, mode)).collect();
            let names = names?;
            let distinct: HashSet<_> = names.iter().map(|(name, _)| name.clone()).collect();
            (!names.is_empty() && distinct.len() == names.len()).then_some((names, true))
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

/// Whether two limits are the same but for the last digits, in which readers of numbers may differ.
#[must_use]
pub fn are_close(read: Option<Duration>, expected: Option<f64>) -> bool {
    let (Some(read), Some(expected)) = (read, expected) else { return read.is_none() && expected.is_none() };
    let expected = Duration::try_from_secs_f64(expected).unwrap_or(Duration::MAX);
    let off = read.abs_diff(expected).as_secs_f64();
    off <= 2e-9 || off <= read.as_secs_f64() * 1e-12
}
