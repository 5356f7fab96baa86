//! A fast reader of objects one level deep, for what clients usually send. It accepts only JSON, and
//! finds in it what `serde_json` would find. What it does not accept is left to `serde_json`, which
//! also has the words for what is wrong with it. Does not recurse.
//!
//! Its functions are given a text and a position in it. They return the position after what they are
//! named after, or `None` if that is not there.

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, Error, MapDeserializer};
use serde_json::value::RawValue;

/// The values of `keys` in an object, in their order, and whether it has other keys. `None` if
/// `serde_json` is to say.
///
/// Inlined, like its callers, so that it compares with keys that are known when it is compiled.
#[inline(always)]
pub(super) fn scan<'a, const N: usize>(
    json: &'a str,
    keys: [&str; N],
) -> Option<([Option<&'a RawValue>; N], bool)> {
    let (mut values, mut has_others) = ([None; N], false);
    let bytes = json.as_bytes();
    let mut at = punctuation(bytes, 0, b'{')?;
    if let Some(end) = punctuation(bytes, at, b'}') {
        at = end;
    } else {
        loop {
            at = punctuation(bytes, at, b'"')?;
            let wanted = keys.iter().position(|key| is_key_at(bytes, at, key));
            let key = at;
            at = match wanted {
                Some(index) => at + keys[index].len() + 1,
                None => string(bytes, at)?,
            };
            let start = space(bytes, punctuation(bytes, at, b':')?);
            at = value(bytes, start)?;
            match wanted {
                Some(index) => {
                    let value = json.get(start..at)?;
                    values[index] = if value == "null" { None } else { Some(raw_value(value)?) };
                }
                // Written with escapes, it may be one of `keys`.
                None if bytes.get(key..start)?.contains(&b'\\') => return None,
                None => has_others = true,
            }
            at = match next(bytes, at) {
                (b',', after) => after,
                (b'}', after) => break at = after,
                _ => return None,
            };
        }
    }
    (space(bytes, at) == bytes.len()).then_some((values, has_others))
}

fn is_key_at(bytes: &[u8], at: usize, key: &str) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'"'))
}

/// Makes a raw value of a text that is known to be one JSON value. `serde_json::from_str` would
/// read the text once more; this is how `serde_json` itself hands over what it has read. `None` if
/// another version of it does that in another way.
fn raw_value(text: &str) -> Option<&RawValue> {
    const KEY: &str = "$serde_json::private::RawValue";
    let entry = (KEY, BorrowedStrDeserializer::<Error>::new(text));
    <&RawValue>::deserialize(MapDeserializer::new(std::iter::once(entry))).ok()
}

/// The byte at a position. After the end it is zero, which JSON has nowhere.
fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(byte(bytes, at), b' ' | b'\n' | b'\r' | b'\t') {
        at += 1;
    }
    at
}

/// The next byte that is not white space, and the position after it.
fn next(bytes: &[u8], at: usize) -> (u8, usize) {
    let at = space(bytes, at);
    (byte(bytes, at), at + 1)
}

/// White space and this byte.
fn punctuation(bytes: &[u8], at: usize, wanted: u8) -> Option<usize> {
    if byte(bytes, at) == wanted {
        return Some(at + 1);
    }
    let (found, after) = next(bytes, at);
    (found == wanted).then_some(after)
}

/// Any value.
#[inline]
fn value(bytes: &[u8], at: usize) -> Option<usize> {
    match byte(bytes, at) {
        b'{' | b'[' => nested(bytes, at),
        _ => scalar(bytes, at),
    }
}

/// An array or an object. At most 64 of them may be inside each other.
fn nested(bytes: &[u8], mut at: usize) -> Option<usize> {
    // The arrays and objects around the position, in bits, the innermost in the lowest: 1 is an
    // object. The 1 above them only marks where they begin.
    let mut around = 1_u64;
    loop {
        at = space(bytes, at);
        let open = byte(bytes, at);
        if let b'{' | b'[' = open {
            if around.leading_zeros() == 0 {
                return None;
            }
            let is_object = open == b'{';
            around = around << 1 | u64::from(is_object);
            at += 1;
            let (first, after) = next(bytes, at);
            if first == if is_object { b'}' } else { b']' } {
                around >>= 1;
                at = after;
            } else {
                if is_object {
                    at = key(bytes, at)?;
                }
                continue;
            }
        } else {
            at = scalar(bytes, at)?;
        }
        // A value has ended.
        loop {
            if around == 1 {
                return Some(at);
            }
            let is_object = around & 1 == 1;
            let (found, after) = next(bytes, at);
            at = after;
            if found == b',' {
                if is_object {
                    at = key(bytes, at)?;
                }
                break;
            }
            if found != if is_object { b'}' } else { b']' } {
                return None;
            }
            around >>= 1;
        }
    }
}

/// The key of an entry and its colon.
fn key(bytes: &[u8], at: usize) -> Option<usize> {
    punctuation(bytes, string(bytes, punctuation(bytes, at, b'"')?)?, b':')
}

/// A value that is neither an array nor an object.
#[inline(always)]
fn scalar(bytes: &[u8], at: usize) -> Option<usize> {
    match byte(bytes, at) {
        b'"' => string(bytes, at + 1),
        b't' => word(bytes, at, b"true"),
        b'f' => word(bytes, at, b"false"),
        b'n' => word(bytes, at, b"null"),
        _ => number(bytes, at),
    }
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(word).then_some(at + word.len())
}

#[inline]
fn number(bytes: &[u8], mut at: usize) -> Option<usize> {
    at += usize::from(byte(bytes, at) == b'-');
    at = if byte(bytes, at) == b'0' { at + 1 } else { digits(bytes, at)? };
    if byte(bytes, at) == b'.' {
        at = digits(bytes, at + 1)?;
    }
    if let b'e' | b'E' = byte(bytes, at) {
        at += 1 + usize::from(matches!(byte(bytes, at + 1), b'+' | b'-'));
        at = digits(bytes, at)?;
    }
    Some(at)
}

/// One or more digits.
#[inline]
fn digits(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while byte(bytes, at).is_ascii_digit() {
        at += 1;
    }
    (at > start).then_some(at)
}

/// The rest of a string, after its opening quotation mark.
#[inline(never)]
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    let at = ordinary(bytes, at);
    if byte(bytes, at) == b'"' { Some(at + 1) } else { escapes(bytes, at) }
}

/// The rest of a string, from a byte that does not stand for itself.
#[cold]
#[inline(never)]
fn escapes(bytes: &[u8], mut at: usize) -> Option<usize> {
    while byte(bytes, at) == b'\\' {
        at = ordinary(bytes, escape(bytes, at + 1)?);
    }
    (byte(bytes, at) == b'"').then_some(at + 1)
}

/// The rest of an escape, after its backslash.
fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match byte(bytes, at) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => bytes.get(at + 1..at + 5)?.iter().all(u8::is_ascii_hexdigit).then_some(at + 5),
        _ => None,
    }
}

/// What stands for itself in a string: neither quotation marks nor backslashes nor control
/// characters. Looks at eight bytes at a time.
#[inline(always)]
fn ordinary(bytes: &[u8], at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // The highest bit of each byte that is less than `limit`. For the bytes after the first of
    // these it means nothing.
    let below = |bytes: u64, limit: u64| bytes.wrapping_sub(ONES * limit) & !bytes & (ONES << 7);
    let mut rest = bytes.get(at..).unwrap_or_default();
    while let Some((eight, more)) = rest.split_first_chunk::<8>() {
        let eight = u64::from_le_bytes(*eight);
        // With this bit flipped, `"` follows the control characters, and these stay below it.
        let ends = below(eight ^ (ONES * 0x02), 0x21) | below(eight ^ (ONES * 0x5c), 0x01);
        if ends != 0 {
            return bytes.len() - rest.len() + ends.trailing_zeros() as usize / 8;
        }
        rest = more;
    }
    let mut at = bytes.len() - rest.len();
    while !matches!(byte(bytes, at), b'"' | b'\\' | ..0x20) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::wire::message::object::read;

    const KEYS: [&str; 4] = ["lockName", "lockNames", "mode", "id"];

    type Found = ([Option<String>; 4], bool);

    fn owned((values, has_others): ([Option<&RawValue>; 4], bool)) -> Found {
        (values.map(|value| value.map(|value| value.get().to_owned())), has_others)
    }

    /// Whether the text was read; what was read must be what `serde_json` reads.
    fn is_scanned(json: &str) -> bool {
        let found = scan(json, KEYS).map(owned);
        found.is_some_and(|found| {
            assert_eq!(Some(found), read(json, KEYS).ok().map(owned), "{json:?}");
            true
        })
    }

    #[test]
    fn what_clients_usually_send_is_not_left_to_serde_json() {
        for json in [
            r#"{"lockName":"foo","mode":"shared","id":7}"#,
            " { \"id\" : null , \"mode\" : [ ] ,\r\n\t\"x\":{},\"lockName\":-0.5E+7 } ",
            r#"{"lockNames":["a",{"lockName":"b\/c\u00e4","mode":"shared"},[[],{}]],"x":{"a\n":true}}"#,
            r#"{"lockName":"a","lockName":"b","y":false}"#,
            "{}",
        ] {
            assert!(is_scanned(json), "{json}");
        }
    }

    #[test]
    fn what_is_unusual_or_wrong_is_left_to_serde_json() {
        let nested = |depth| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_scanned(&nested(63)));
        for json in [
            &nested(64),
            r#"{"lockNam\u0065":1}"#,
            r#"{"x\n":1}"#,
            "",
            "[]",
            "{\"id\":1",
            "{\"id\":1}x",
            "{\"id\":1,}",
            "{,}",
            "{\"id\":01}",
            "{\"id\":1.}",
            "{\"id\":1e}",
            "{\"id\":-}",
            "{\"id\":.5}",
            "{\"id\":[1,]}",
            "{\"id\":[,]}",
            "{\"id\":[1}",
            "{\"id\":{\"a\"}}",
            "{\"id\":{\"a\":1]}",
            "{\"id\":{1:1}}",
            "{\"id\":\"a",
            "{\"id\":\"\\",
            "{\"id\":\"\t\"}",
            "{\"id\":\"\\x\"}",
            "{\"id\":\"\\u00g0\"}",
            "{\"id\":\"\\u00",
            "{\"id\":nul}",
            "{\"id\":\0}",
            "{\"id\" 1}",
        ] {
            assert!(!is_scanned(json), "{json}");
        }
    }

    #[test]
    fn a_string_ends_at_the_same_byte_wherever_it_begins() {
        for special in [0, 1, 0x1f, b'"', b'\\', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
            for (length, at) in (0..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
                let mut bytes = vec![b'a'; length];
                bytes[at] = special;
                let end = if matches!(special, b'"' | b'\\' | ..0x20) { at } else { length };
                for start in 0..=at {
                    assert_eq!(ordinary(&bytes, start), end, "{bytes:?} from {start}");
                }
            }
        }
    }

    fn any_space() -> impl Strategy<Value = &'static str> {
        select(vec!["", "", "", "", " ", "\n\t", "\r "])
    }

    fn any_scalar() -> impl Strategy<Value = String> {
        prop_oneof![
            select(vec!["null", "true", "false", "0", "-1", "12.5e-3", "1E9", "\"shared\"", "\"\""])
                .prop_map(str::to_owned),
            "\"([a-zäö\u{1f512}]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}){0,12}\"",
        ]
    }

    fn any_object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        let key = select(vec!["lockName", "lockNames", "mode", "id", "x", "lockNam\\u0065", "\\ud800"]);
        vec((any_space(), key, any_space(), any_space(), value, any_space()), 0..5).prop_map(|entries| {
            let entries =
                entries.iter().map(|(a, key, b, c, value, d)| format!("{a}\"{key}\"{b}:{c}{value}{d}"));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        })
    }

    fn any_value() -> impl Strategy<Value = String> {
        any_scalar().prop_recursive(4, 20, 4, |inner| {
            let array = vec((any_space(), inner.clone()), 0..4).prop_map(|items| {
                let items = items.iter().map(|(space, item)| format!("{space}{item}"));
                format!("[{}]", items.collect::<Vec<_>>().join(","))
            });
            prop_oneof![array, any_object(inner)]
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_serde_json_finds(json in any_object(any_value())) {
            prop_assert!(is_scanned(&json) || json.contains("\\u0065\"") || json.contains("\\ud800"));
        }

        /// Damaged JSON is nearly valid, which finds more errors than random text.
        #[test]
        fn it_accepts_nothing_that_serde_json_refuses(
            json in any_object(any_value()),
            damage in vec((any::<prop::sample::Index>(), select(" \"\\\n\0,:{}[]019-+.eEtu\u{e4}".chars().collect::<Vec<_>>()), 0..3), 1..4),
        ) {
            let mut json: Vec<char> = json.chars().collect();
            for (at, other, kind) in damage {
                let at = at.index(json.len());
                match kind {
                    0 => json[at] = other,
                    1 => json.insert(at, other),
                    _ => drop(json.splice(at..at + 1, [])),
                }
                if json.is_empty() {
                    break;
                }
            }
            is_scanned(&json.iter().collect::<String>());
        }
    }
}
