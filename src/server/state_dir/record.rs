//! What one run of a broker leaves to the next, as text for the state file. Pure: knows no file and
//! no clock. Reads only what it writes itself, to the byte. Any other text was not written to its
//! end by a lockd, and a guess at its meaning could lead to a lock being granted that another
//! client still believes to hold.

use std::fmt::Write as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;

/// The first line, which has the version of the format.
const HEADING: &str = "lockd state 1\n";
const HEADING_OF_ANY_VERSION: &[u8] = b"lockd state ";
/// The most bytes that a record has as text.
pub(super) const RECORD_BYTES_MAX: usize = 256;

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Every fencing token of the run is lower than this.
    pub(super) tokens_end: u64,
    /// The longest time after the end of the run until all of its clients know of it, in whole
    /// seconds.
    pub(super) dead_peer_timeout: Duration,
    /// Whether the run has stopped cleanly: every client that held a lock knows that it has lost
    /// it.
    pub(super) stopped: bool,
}

impl Record {
    pub(super) fn encode(&self) -> String {
        let state = if self.stopped { "stopped" } else { "running" };
        let (tokens, timeout) = (self.tokens_end, self.dead_peer_timeout.as_secs());
        let mut text = format!("{HEADING}tokens-end {tokens}\ndead-peer-timeout {timeout}\n{state}\n");
        // Detects a file that was torn or edited. It does not protect against forgery.
        let check = SipHasher13::new().hash(text.as_bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "check {check:016x}");
        text
    }

    /// Reads a text that [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// If it is any other text; the message says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.is_empty() {
            return Err("it is empty");
        }
        if bytes.starts_with(HEADING_OF_ANY_VERSION) && !bytes.starts_with(HEADING.as_bytes()) {
            return Err("it is torn, or written by another version of lockd");
        }
        let foreign = "it is not a state file of lockd";
        let text = std::str::from_utf8(bytes).map_err(|_| foreign)?;
        let text = text.strip_prefix(HEADING).ok_or(foreign)?;
        let record = Self::fields(text).ok_or("it is torn or damaged")?;
        if record.encode().as_bytes() == bytes { Ok(record) } else { Err("it is torn or damaged") }
    }

    fn fields(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.parse().ok();
        let tokens_end = value("tokens-end ")?;
        let dead_peer_timeout = Duration::from_secs(value("dead-peer-timeout ")?);
        let stopped = match lines.next()? {
            "stopped" => true,
            "running" => false,
            _ => return None,
        };
        Some(Self { tokens_end, dead_peer_timeout, stopped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> impl Iterator<Item = Record> {
        [0, 1, 1_790_000_000_000_000, 1 << 53, u64::MAX].into_iter().flat_map(|tokens_end| {
            [(5, true), (25, false), (32_767, false)].map(|(seconds, stopped)| Record {
                tokens_end,
                dead_peer_timeout: Duration::from_secs(seconds),
                stopped,
            })
        })
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for record in records() {
            let text = record.encode();
            assert!(text.len() < RECORD_BYTES_MAX);
            assert_eq!(Record::parse(text.as_bytes()), Ok(record));
        }
    }

    #[test]
    fn a_text_that_is_torn_or_changed_in_one_bit_is_refused() {
        for record in records() {
            let text = record.encode().into_bytes();
            for length in 0..text.len() {
                assert!(Record::parse(&text[..length]).is_err(), "{length} bytes of {record:?}");
            }
            for at in 0..text.len() {
                for bit in 0..8 {
                    let mut changed = text.clone();
                    changed[at] ^= 1 << bit;
                    assert!(Record::parse(&changed).is_err(), "bit {bit} of byte {at} of {record:?}");
                }
            }
            assert!(Record::parse(&[&text[..], b"\n"].concat()).is_err());
            assert!(Record::parse(&[&text[..], &text[..]].concat()).is_err());
        }
    }

    #[test]
    fn the_error_says_what_is_wrong() {
        let error = |bytes: &[u8]| Record::parse(bytes).unwrap_err();
        assert!(error(b"").contains("empty"));
        assert!(error(b"lockd state 2\nanything").contains("another version"));
        assert!(error(b"lockd st").contains("not a state file"));
        assert!(error(b"\xff\xfe").contains("not a state file"));
        assert!(error(b"lockd state 1\ntokens-end 5\n").contains("torn"));
        // A number that would be written in another way.
        let text = records().next().unwrap().encode().replace("tokens-end 0", "tokens-end +0");
        assert!(error(text.as_bytes()).contains("torn"));
    }
}
