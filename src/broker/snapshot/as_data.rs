//! How bytes, spaces and modes are written in snapshots, for `#[serde(with = …)]`. Each value has
//! one text, and every other text is refused.

/// Bytes as a string of lower-case hexadecimal digits, two for each byte.
pub(crate) mod hex {
    use std::borrow::Cow;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    const DIGITS: [u8; 16] = *b"0123456789abcdef";

    pub(crate) fn serialize<T, S>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: AsRef<[u8]> + ?Sized,
        S: Serializer,
    {
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        let bytes = bytes.as_ref();
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            text.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        serializer.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: for<'a> From<&'a [u8]>,
        D: Deserializer<'de>,
    {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = parse(text.as_bytes()).ok_or_else(|| D::Error::custom("not lower-case hexadecimal"))?;
        Ok(T::from(&bytes))
    }

    fn parse(text: &[u8]) -> Option<Vec<u8>> {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_chunks::<2>() else { return None };
        pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect()
    }
}

/// The same for bytes that may be missing: `null` then.
pub(crate) mod hex_or_null {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Serialize, Serializer};

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(transparent)]
    struct Hex(#[serde(with = "super::hex")] Vec<u8>);

    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Hex).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Hex>::deserialize(deserializer)?.map(|hex| hex.0))
    }
}

/// A value or `null`. Without this, a field that is missing altogether would be read as `null`.
pub(crate) fn value_or_null<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    serde::Deserialize::deserialize(deserializer)
}

/// A space: `"main"` or `"counted"`.
pub(crate) mod space {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Serialize, Serializer};

    use crate::broker::name::Space;

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum SpaceName {
        Main,
        Counted,
    }

    pub(crate) fn serialize<S: Serializer>(space: &Space, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match space {
            Space::Main => SpaceName::Main,
            Space::Counted => SpaceName::Counted,
        };
        name.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Space, D::Error> {
        Ok(match SpaceName::deserialize(deserializer)? {
            SpaceName::Main => Space::Main,
            SpaceName::Counted => Space::Counted,
        })
    }
}

/// A mode: `"exclusive"`, `{"at_most":4}` or `"shared"`.
pub(crate) mod mode {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    use crate::broker::mode::Mode;

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum ModeName {
        Exclusive,
        AtMost(u32),
        Shared,
    }

    pub(crate) fn serialize<S: Serializer>(mode: &Mode, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match mode {
            Mode::Exclusive => ModeName::Exclusive,
            Mode::Limited(limit) => ModeName::AtMost(limit.get()),
            Mode::Shared => ModeName::Shared,
        };
        name.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
        match ModeName::deserialize(deserializer)? {
            ModeName::Exclusive => Ok(Mode::Exclusive),
            ModeName::AtMost(holders) => {
                let mode = Mode::at_most(holders).filter(|&mode| mode != Mode::Exclusive);
                mode.ok_or_else(|| D::Error::custom(format!("no mode allows at most {holders} holders")))
            }
            ModeName::Shared => Ok(Mode::Shared),
        }
    }
}
