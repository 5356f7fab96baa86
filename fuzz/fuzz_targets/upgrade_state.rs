//! The state that a server hands over in an upgrade: any bytes, any JSON, and a recorded state with
//! other values are refused or checked, and what is read is written again unchanged.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use lockd::broker::Limits;
use lockd::server::Config;
use lockd::server::snapshot::{decode, encode, with_header};
use serde_json::Value;

static RECORDED: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../tests/upgrade/state-1.json")).unwrap());

fuzz_target!(|data: &[u8]| {
    let _ = decode(data);
    read(data);
    let mut state = RECORDED.clone();
    for change in data.chunks_exact(4) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let leaves = count(&state);
        set(&mut state, &mut (place % leaves), &value(change[2], change[3]));
    }
    read(state.to_string().as_bytes());
});

/// Reads this JSON as a state.
fn read(json: &[u8]) {
    let Ok(snapshot) = decode(&with_header(json)) else { return };
    assert_eq!(decode(&encode(&snapshot).unwrap()).unwrap(), snapshot);
    let _ = snapshot.check(&Config::default(), Limits::default());
}

/// A value to put somewhere.
fn value(kind: u8, number: u8) -> Value {
    let number = u64::from(number);
    match kind % 8 {
        0 => Value::Null,
        1 => Value::Bool(number & 1 == 1),
        2 => number.into(),
        3 => (1_u64 << (number % 64)).into(),
        4 => (u64::MAX - number).into(),
        5 => format!("{number:02x}").repeat(usize::from(kind)).into(),
        6 => Value::Array(vec![number.into(); usize::from(kind) % 5]),
        _ => Value::Array(vec![RECORDED["connections"][0].clone(); usize::from(kind) % 3]),
    }
}

/// How many values there are that have no others in them.
fn count(state: &Value) -> usize {
    match state {
        Value::Array(items) if !items.is_empty() => items.iter().map(count).sum(),
        Value::Object(fields) if !fields.is_empty() => fields.values().map(count).sum(),
        _ => 1,
    }
}

/// Replaces the value with this number. False if it is not in `state`, and the number is less by
/// how many are.
fn set(state: &mut Value, place: &mut usize, new: &Value) -> bool {
    match state {
        Value::Array(items) if !items.is_empty() => items.iter_mut().any(|item| set(item, place, new)),
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter_mut().any(|(_, field)| set(field, place, new))
        }
        leaf if *place == 0 => {
            *leaf = new.clone();
            true
        }
        _ => {
            *place -= 1;
            false
        }
    }
}
