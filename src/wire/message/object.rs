//! Reads objects one level deep: finds the values of certain keys and leaves them as raw JSON. This
//! keeps reading iterative, because `serde_json` does not recurse to skip a raw or unknown value.
//! What clients usually send is read by the [`scanner`](super::scanner), which is several times as
//! fast; `serde_json` reads the rest, and finds the words for what is wrong.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::wire::message::scanner::scan;

/// Reads an object and returns the values of `keys`, in their order; `null` counts as absent.
///
/// Other keys are ignored. If a key occurs twice, the last one counts, as in PHP.
#[inline(always)]
pub(super) fn values_of<'a, const N: usize>(
    json: &'a str,
    keys: [&str; N],
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    values_and_others(json, keys).map(|(values, _)| values)
}

/// Like [`values_of`]; also returns whether the object has keys other than `keys`.
#[inline(always)]
pub(super) fn values_and_others<'a, const N: usize>(
    json: &'a str,
    keys: [&str; N],
) -> serde_json::Result<([Option<&'a RawValue>; N], bool)> {
    scan(json, keys).map_or_else(|| read(json, keys), Ok)
}

/// The same by `serde_json`, for every text.
#[cold]
#[inline(never)]
pub(super) fn read<'a, const N: usize>(
    json: &'a str,
    keys: [&str; N],
) -> serde_json::Result<([Option<&'a RawValue>; N], bool)> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_map(ObjectVisitor(keys))?;
    deserializer.end()?;
    Ok(found)
}

struct ObjectVisitor<'k, const N: usize>([&'k str; N]);

impl<'de, const N: usize> Visitor<'de> for ObjectVisitor<'_, N> {
    type Value = ([Option<&'de RawValue>; N], bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut values, mut has_others) = ([None; N], false);
        while let Some(wanted) = map.next_key_seed(KeyIndex(&self.0))? {
            match wanted.and_then(|index| values.get_mut(index)) {
                Some(value) => *value = map.next_value()?,
                None => {
                    has_others = true;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((values, has_others))
    }
}

/// Reads a key as its index in this list, if it is in the list.
struct KeyIndex<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for KeyIndex<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIndex<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|&wanted| wanted == key))
    }
}

/// The text of a JSON string. `None` if the value is not a string; an error if the string is not
/// Unicode (`"\ud800"`).
pub(super) fn string(value: &RawValue) -> Option<serde_json::Result<Cow<'_, str>>> {
    let quoted = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if quoted.bytes().any(|byte| byte == b'\\') {
        return Some(serde_json::from_str(value.get()).map(Cow::Owned));
    }
    Some(Ok(Cow::Borrowed(quoted)))
}

/// The value of a JSON number; infinite if it is too large for an `f64`. `None` if the value is not
/// a number.
pub(super) fn number(value: &RawValue) -> Option<f64> {
    // Rust reads every JSON number as the same number, and no other JSON value as a number.
    value.get().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const N: usize>(json: &str, keys: [&str; N]) -> Option<[Option<String>; N]> {
        let values = values_of(json, keys).ok()?;
        Some(values.map(|value| value.map(|value| value.get().to_owned())))
    }

    #[test]
    fn values_are_raw_and_in_the_order_of_the_keys() {
        let json = r#" {"b" : [1, {"a":2}] ,"x":{"a":3},"a": "\u0041"} "#;
        let expected = [Some(r#""\u0041""#.to_owned()), Some(r#"[1, {"a":2}]"#.to_owned()), None];
        assert_eq!(values(json, ["a", "b", "c"]), Some(expected));
    }

    #[test]
    fn keys_are_compared_unescaped_and_the_last_one_counts() {
        assert_eq!(values(r#"{"\u0061":1,"a":2}"#, ["a"]), Some([Some("2".to_owned())]));
        assert_eq!(values(r#"{"a":1,"a":null}"#, ["a"]), Some([None]));
    }

    #[test]
    fn only_a_whole_object_is_read() {
        for json in
            ["", "1", "null", "[]", "\"a\"", "{", "{}}", "{\"a\":1,}", "{a:1}", "{\"x\":[}", "{\"x\":\"\t\"}"]
        {
            assert_eq!(values(json, ["a"]), None, "{json:?}");
        }
    }

    #[test]
    fn only_strings_are_texts_and_only_numbers_are_numbers() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let text = |json: &str| string(&raw(json)).map(|text| text.ok().map(Cow::into_owned));
        assert_eq!(text(r#""foo""#), Some(Some("foo".to_owned())));
        assert_eq!(text(r#""a\"\u00e4\\""#), Some(Some("a\"ä\\".to_owned())));
        assert_eq!(text(r#""\ud800""#), Some(None));
        for (json, value) in [("1", 1.0), ("-0.5", -0.5), ("1e3", 1e3), ("1e999", f64::INFINITY)] {
            assert_eq!((number(&raw(json)), text(json)), (Some(value), None), "{json}");
        }
        for json in ["true", "null", "{}", "[\"a\"]"] {
            assert_eq!((number(&raw(json)), text(json)), (None, None), "{json}");
        }
        assert_eq!(number(&raw("\"1\"")), None);
    }
}
