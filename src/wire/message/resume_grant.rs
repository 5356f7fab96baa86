//! What a server tells a client that may want to resume its session: the session's id, the epoch
//! of the server's run, and the secret that proves both. Knows how they are written; the server
//! decides what they are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::wire::message::values::{from_hex, to_hex};

/// With what a session can be resumed. A client repeats it as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeGrant {
    /// The id of the session.
    pub session: ResumeId,
    /// The number of the server's run that told it.
    pub epoch: u64,
    /// The proof that the server told this session so.
    pub secret: ResumeSecret,
}

/// The id of a session that can be resumed; 32 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResumeId(pub [u8; 16]);

/// The proof of a [`ResumeGrant`]; 32 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResumeSecret(pub [u8; 16]);

impl fmt::Display for ResumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for ResumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ResumeId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_digits(text).map(Self).ok_or("not 32 hexadecimal digits")
    }
}

impl fmt::Debug for ResumeSecret {
    /// Leaves out the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeSecret")
    }
}

impl Serialize for ResumeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl Serialize for ResumeSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for ResumeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        digits(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for ResumeSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        digits(deserializer).map(Self)
    }
}

fn digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
    let text = String::deserialize(deserializer)?;
    from_digits(&text).ok_or_else(|| D::Error::custom("not 32 hexadecimal digits"))
}

/// Reads 32 hexadecimal digits of either case.
pub(super) fn from_digits(text: &str) -> Option<[u8; 16]> {
    from_hex(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: &str = r#"{"session":"000102030405060708090a0b0c0d0eff","epoch":7,"secret":"ffffffffffffffffffffffffffffff00"}"#;

    #[test]
    fn a_grant_is_read_as_it_was_written() {
        let grant: ResumeGrant = serde_json::from_str(GRANT).unwrap();
        assert_eq!((grant.session.0[1], grant.session.0[15], grant.epoch), (1, 255, 7));
        assert_eq!(grant.secret.0[15], 0);
        assert_eq!(serde_json::to_string(&grant).unwrap(), GRANT);
    }

    #[test]
    fn only_sixteen_bytes_are_an_id() {
        for text in ["", "00", &"0".repeat(31), &"0".repeat(34), &"g".repeat(32), &"é".repeat(16)] {
            assert_eq!(from_digits(text), None, "{text}");
        }
        assert_eq!(from_digits(&"Ab".repeat(16)), Some([0xab; 16]));
    }

    #[test]
    fn the_secret_is_not_shown() {
        let grant: ResumeGrant = serde_json::from_str(GRANT).unwrap();
        let shown = format!("{grant:?}");
        assert!(shown.contains("000102030405060708090a0b0c0d0eff") && !shown.contains("ffffff"), "{shown}");
    }
}
