//! How values are written for which JSON has no type: lock names, modes, durations. Knows the
//! broker's types for them, and nothing about the requests and replies that contain them.
//!
//! A name is bytes and JSON is Unicode, so a name that is not UTF-8 is written in hexadecimal under
//! a key of its own (`lockNameHex` instead of `lockName`). If both keys are given, the hexadecimal
//! one counts, because it is exact.

use std::borrow::Cow;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};

use crate::broker::LockName;
use crate::os::Keepalive;

/// The two keys that a name can have: one for text, one for hexadecimal digits.
#[derive(Clone, Copy)]
pub(super) struct NameKeys {
    pub(super) text: &'static str,
    pub(super) hex: &'static str,
}

pub(super) const LOCK_NAME: NameKeys = NameKeys { text: "lockName", hex: "lockNameHex" };
pub(super) const PREFIX: NameKeys = NameKeys { text: "prefix", hex: "prefixHex" };
pub(super) const AFTER: NameKeys = NameKeys { text: "after", hex: "afterHex" };

/// Writes a name under the key that represents it exactly.
pub(super) fn serialize_exact<M: SerializeMap>(
    map: &mut M,
    keys: NameKeys,
    name: &LockName,
) -> Result<(), M::Error> {
    match str::from_utf8(name.as_bytes()) {
        Ok(text) => map.serialize_entry(keys.text, text),
        Err(_) => map.serialize_entry(keys.hex, &to_hex(name.as_bytes())),
    }
}

/// A name for people to read, and its bytes in hexadecimal if the text does not represent all of
/// them.
pub(super) fn to_text(name: &LockName) -> (String, Option<String>) {
    let text = String::from_utf8_lossy(name.as_bytes());
    let hex = matches!(text, Cow::Owned(_)).then(|| to_hex(name.as_bytes()));
    (text.into_owned(), hex)
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Reads hexadecimal digits of either case. `None` if there are other characters or an odd number
/// of digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| u8::try_from(char::from(digit).to_digit(16)?).ok();
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect()
}

/// A mode as it is shown: `"mode":"exclusive"`, `"mode":"shared"`, or for a limited lock
/// `"mode":"shared","limit":n`, so that a client that does not know limits takes it for shared. For
/// `#[serde(flatten, with)]`.
pub(super) mod mode {
    use serde::{Deserializer, Serialize, Serializer, de::Error};

    use super::mode_or_null;
    use crate::broker::Mode;

    pub(crate) fn to_text(mode: Mode) -> &'static str {
        match mode {
            Mode::Exclusive => "exclusive",
            Mode::Limited(_) | Mode::Shared => "shared",
        }
    }

    pub(crate) fn from_text(text: &str) -> Option<Mode> {
        [Mode::Exclusive, Mode::Shared].into_iter().find(|&mode| to_text(mode) == text)
    }

    #[derive(Serialize)]
    struct ShownMode {
        mode: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    }

    pub(crate) fn serialize<S: Serializer>(mode: &Mode, serializer: S) -> Result<S::Ok, S::Error> {
        ShownMode { mode: to_text(*mode), limit: mode.limit() }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
        mode_or_null::deserialize(deserializer)?.ok_or_else(|| D::Error::missing_field("mode"))
    }
}

/// The mode of a name that may be free: `"mode":null` then. For `#[serde(flatten, with)]`.
pub(super) mod mode_or_null {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::mode;
    use crate::broker::Mode;

    #[derive(Serialize)]
    struct NoMode {
        mode: (),
    }

    #[derive(Deserialize)]
    struct ModeKeys<'a> {
        #[serde(borrow, default)]
        mode: Option<Cow<'a, str>>,
        #[serde(default)]
        limit: Option<u32>,
    }

    pub(crate) fn serialize<S: Serializer>(mode: &Option<Mode>, serializer: S) -> Result<S::Ok, S::Error> {
        match mode {
            Some(mode) => mode::serialize(mode, serializer),
            None => NoMode { mode: () }.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mode>, D::Error> {
        let ModeKeys { mode, limit } = ModeKeys::deserialize(deserializer)?;
        let Some(text) = mode else { return Ok(None) };
        let mode = match (mode::from_text(&text), limit) {
            (Some(Mode::Shared), Some(limit)) => Mode::at_most(limit),
            (mode, _) => mode,
        };
        mode.map(Some).ok_or_else(|| D::Error::custom("an unknown mode"))
    }
}

/// Durations as numbers of seconds, without a fraction if it is zero. For `#[serde(with)]`.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        match duration.subsec_nanos() {
            0 => serializer.serialize_u64(duration.as_secs()),
            _ => serializer.serialize_f64(duration.as_secs_f64()),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        from_f64(seconds).ok_or_else(|| D::Error::custom("a negative number of seconds"))
    }

    /// The duration of a number of seconds: `None` if it is negative, [`Duration::MAX`] if it is
    /// too large.
    pub(crate) fn from_f64(seconds: f64) -> Option<Duration> {
        (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

/// For `skip_serializing_if`, which passes a reference.
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

/// Keepalive times in seconds. For `#[serde(with)]`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Keepalive", rename_all = "camelCase")]
pub(super) struct KeepaliveSeconds {
    #[serde(with = "seconds")]
    idle: Duration,
    #[serde(with = "seconds")]
    interval: Duration,
    probes: u32,
    #[serde(with = "seconds")]
    user_timeout: Duration,
    #[serde(with = "seconds")]
    dead_peer_timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_after_hexadecimal() {
        let all: Vec<u8> = (0..=255).collect();
        let hex = to_hex(&all);
        assert!(hex.starts_with("000102") && hex.ends_with("fdfeff"), "{hex}");
        assert_eq!(from_hex(&hex), Some(all));
        assert_eq!(from_hex("C3a4"), Some("ä".as_bytes().to_vec()));
        assert_eq!(from_hex(""), Some(Vec::new()));
        for bad in ["f", "fg", "+1", "ä"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_names_that_are_not_utf8_have_hexadecimal_digits() {
        assert_eq!(to_text(&LockName::from("ä")), ("ä".to_owned(), None));
        assert_eq!(to_text(&LockName::new(b"a\xff")), ("a\u{fffd}".to_owned(), Some("61ff".to_owned())));
    }
}
