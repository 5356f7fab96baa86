//! For tests of what is kept as data: changes each value of its JSON, one at a time.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Calls `check` with the data once for each change to one value of its JSON that is still data of
/// this type. A value that is added to the type is changed, too.
pub(crate) fn for_each_changed_leaf<T: Serialize + DeserializeOwned>(data: &T, mut check: impl FnMut(T)) {
    let whole = serde_json::to_value(data).unwrap();
    let mut leaves = Vec::new();
    find_leaves(&whole, String::new(), &mut leaves);
    assert!(!leaves.is_empty());
    for leaf in leaves {
        for value in others(whole.pointer(&leaf).unwrap()) {
            let mut changed = whole.clone();
            *changed.pointer_mut(&leaf).unwrap() = value;
            if let Ok(data) = serde_json::from_value(changed) {
                check(data);
            }
        }
    }
}

fn find_leaves(value: &Value, at: String, leaves: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| find_leaves(value, format!("{at}/{key}"), leaves));
        }
        Value::Array(items) if !items.is_empty() => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| find_leaves(value, format!("{at}/{index}"), leaves));
        }
        _ => leaves.push(at),
    }
}

/// Other values that might stand in the same place.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![json!(true), json!(0), json!(7), json!(""), json!("00"), json!([1])],
        Value::Bool(flag) => vec![json!(!flag), Value::Null],
        Value::Number(number) => {
            let number = number.as_u64().unwrap_or_default();
            let near = [number.wrapping_add(1), number.wrapping_sub(1), number ^ 0x80];
            let far = [0, 1, u64::from(u32::MAX), i64::MAX as u64, u64::MAX];
            near.into_iter().chain(far).map(Value::from).chain([json!(-1), Value::Null]).collect()
        }
        Value::String(text) => {
            let all_but_last: String = text.chars().take(text.len().saturating_sub(2)).collect();
            vec![
                json!(format!("{text}00")),
                json!(all_but_last),
                json!("!"),
                json!("ff".repeat(200)),
                Value::Null,
            ]
        }
        // Empty, as all others have leaves.
        Value::Array(_) => vec![json!([0]), json!([u64::MAX, 1]), json!(["00"]), json!([true])],
        Value::Object(_) => vec![Value::Null],
    }
}
