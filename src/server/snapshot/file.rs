//! The bytes of a snapshot: a header with the version of the format, the length and the hash of what
//! follows, and then JSON, which ends with the file. Pure. Whatever is not exactly that is refused,
//! and the error says why: half of a state could have a lock granted that a client still holds.
//!
//! A version of lockd that adds to the state gives the new fields defaults, and reads what earlier
//! versions have written. A field that it does not know is refused.

use std::fmt;

use siphasher::sip::SipHasher13;

use super::types::ServerSnapshot;

const MAGIC: [u8; 8] = *b"lockdupg";
/// The version of the format that is written.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>() + 2 * size_of::<u64>();

/// Why bytes are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// They do not begin like one.
    Foreign,
    /// They are in a format of this version, which is not known.
    UnknownVersion(u32),
    /// There are fewer or more of them than there should be.
    WrongLength,
    /// They have changed since they were written.
    Damaged,
    /// They are not the state of a server; the text says where.
    Malformed(String),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is not the state of a lockd"),
            Self::UnknownVersion(version) => {
                write!(f, "it has the format {version}, and this lockd knows only the format {VERSION}")
            }
            Self::WrongLength => f.write_str("it is not whole, or something follows it"),
            Self::Damaged => f.write_str("it is damaged"),
            Self::Malformed(what) => write!(f, "it has something that this lockd does not know: {what}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// The bytes of a snapshot.
///
/// # Errors
/// If it cannot be written as JSON, which would be a bug.
pub fn encode(snapshot: &ServerSnapshot) -> Result<Vec<u8>, SnapshotError> {
    let body = serde_json::to_vec(snapshot).map_err(|error| SnapshotError::Malformed(error.to_string()))?;
    Ok(with_version(VERSION, &body))
}

/// The bytes of a snapshot with this JSON, for fuzzing.
#[cfg(fuzzing)]
#[must_use]
pub fn with_header(json: &[u8]) -> Vec<u8> {
    with_version(VERSION, json)
}

fn with_version(version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend(version.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(hash(body).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Detects damage. It does not protect against forgery.
fn hash(body: &[u8]) -> u64 {
    SipHasher13::new().hash(body)
}

/// The snapshot of which these are the bytes.
///
/// # Errors
/// If they are not the bytes of a snapshot that this version can read.
pub fn decode(bytes: &[u8]) -> Result<ServerSnapshot, SnapshotError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(SnapshotError::Foreign)?;
    let (version, rest) = rest.split_first_chunk().ok_or(SnapshotError::WrongLength)?;
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(SnapshotError::UnknownVersion(version));
    }
    let (length, rest) = rest.split_first_chunk().ok_or(SnapshotError::WrongLength)?;
    let (expected, body) = rest.split_first_chunk().ok_or(SnapshotError::WrongLength)?;
    if u64::from_le_bytes(*length) != body.len() as u64 {
        return Err(SnapshotError::WrongLength);
    }
    if u64::from_le_bytes(*expected) != hash(body) {
        return Err(SnapshotError::Damaged);
    }
    serde_json::from_slice(body).map_err(|error| SnapshotError::Malformed(error.to_string()))
}

#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests {
    use super::*;
    use crate::server::snapshot::tests::example;

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let snapshot = example();
        assert_eq!(decode(&encode(&snapshot).unwrap()), Ok(snapshot));
    }

    #[test]
    fn bytes_that_are_cut_changed_or_extended_are_refused() {
        let bytes = encode(&example()).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            let error = decode(&changed).unwrap_err();
            let expected = match at {
                0..8 => SnapshotError::Foreign,
                8..12 => {
                    SnapshotError::UnknownVersion(u32::from_le_bytes(changed[8..12].try_into().unwrap()))
                }
                12..20 => SnapshotError::WrongLength,
                _ => SnapshotError::Damaged,
            };
            assert_eq!(error, expected, "byte {at}");
        }
        assert_eq!(decode(&[&bytes[..], b"\n"].concat()), Err(SnapshotError::WrongLength));
    }

    #[test]
    fn what_is_not_known_is_refused_and_named() {
        let json = serde_json::to_string(&example()).unwrap();
        let decode_json = |json: &str| decode(&with_version(VERSION, json.as_bytes()));
        assert!(decode_json(&json).is_ok());
        let unknown = decode_json(&json.replacen("\"is_new\"", "\"is_newer\"", 1)).unwrap_err().to_string();
        assert!(unknown.contains("is_newer"), "{unknown}");
        let later = decode(&with_version(VERSION + 1, json.as_bytes())).unwrap_err().to_string();
        assert!(later.contains("format 2"), "{later}");
        assert!(decode_json(&format!("{json} x")).is_err());
        assert!(decode_json("").is_err());
    }
}
