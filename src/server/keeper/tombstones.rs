//! Sessions whose locks were given to others although their clients may come back: as text, for the
//! file to which it is appended. Pure: knows no file.
//!
//! A line counts once it is whole. A run gives locks away only after the line is on the disk, so a
//! line that is torn at the end of the file is of locks that were not given away.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use siphasher::sip::SipHasher13;

use crate::wire::message::ResumeId;

/// What a file of tombstones says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Tombstones {
    pub(in crate::server) sessions: BTreeSet<ResumeId>,
    /// Whether something in the file was not understood. Then any session may have a tombstone.
    pub(in crate::server) is_damaged: bool,
}

/// The lines for these sessions.
pub(in crate::server) fn encode(sessions: &[ResumeId]) -> String {
    let mut text = String::new();
    for session in sessions {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(*session));
    }
    text
}

fn line(session: ResumeId) -> String {
    let check = SipHasher13::new().hash(session.to_string().as_bytes());
    format!("{session} {check:016x}")
}

/// Reads what was appended, in whatever parts.
pub(in crate::server) fn parse(bytes: &[u8]) -> Tombstones {
    let mut read = Tombstones { sessions: BTreeSet::new(), is_damaged: false };
    let mut lines = bytes.split(|byte| *byte == b'\n');
    // What follows the last end of a line: nothing, or the beginning of a line that was torn.
    let torn = lines.next_back().unwrap_or_default();
    for text in lines {
        match session(text) {
            Some(session) => _ = read.sessions.insert(session),
            None => read.is_damaged = true,
        }
    }
    // A line without its end may also be one whose end was changed.
    read.is_damaged |= torn.len() >= line_length();
    read
}

fn line_length() -> usize {
    32 + 1 + 16
}

fn session(text: &[u8]) -> Option<ResumeId> {
    let text = std::str::from_utf8(text).ok()?;
    let session = text.get(..32)?.parse().ok()?;
    (line(session) == text).then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<ResumeId> {
        numbers.into_iter().map(|number| format!("{number:032x}").parse().unwrap()).collect()
    }

    #[test]
    fn tombstones_are_read_as_they_were_appended() {
        let text = [encode(&ids([3])), encode(&ids([])), encode(&ids([1, 2, 3]))].concat();
        let read = parse(text.as_bytes());
        assert_eq!(read, Tombstones { sessions: ids([1, 2, 3]).into_iter().collect(), is_damaged: false });
        assert!(text.lines().all(|line| line.len() == line_length()));
        assert_eq!(parse(b""), Tombstones { sessions: BTreeSet::new(), is_damaged: false });
    }

    #[test]
    fn a_line_that_was_torn_is_not_read_and_does_no_harm() {
        let whole = encode(&ids([1]));
        let text = encode(&ids([1, 2]));
        for length in whole.len()..text.len() - 1 {
            let read = parse(&text.as_bytes()[..length]);
            assert_eq!(read.sessions, ids([1]).into_iter().collect(), "{length} bytes");
            assert!(!read.is_damaged, "{length} bytes");
        }
    }

    #[test]
    fn a_change_in_any_bit_is_noticed() {
        let text = encode(&ids([1, 2])).into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                let read = parse(&changed);
                assert!(read.is_damaged || read.sessions.len() == 2, "bit {bit} of byte {at}");
                assert!(read.is_damaged, "bit {bit} of byte {at}");
            }
        }
    }
}
