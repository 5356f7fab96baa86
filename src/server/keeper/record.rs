//! What one run of a broker leaves to the next, as text for the state file. Pure: knows no file and
//! no clock. Reads only what it writes itself, or the version before it wrote, to the byte. Any
//! other text was not written to its end by a lockd, and a guess at its meaning could lead to a lock
//! being granted that another client still believes to hold.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::server::resume::secret_key::SecretKey;
use crate::wire::message::ResumeId;

/// The first line, which has the version of the format.
const HEADING: &str = "lockd state 2\n";
/// The first line of a version that knew of no sessions that resume.
const HEADING_BEFORE: &str = "lockd state 1\n";
const HEADING_OF_ANY_VERSION: &[u8] = b"lockd state ";
/// How many sessions a record may name.
pub(in crate::server) const HELD_MAX: usize = 100_000;
/// The most bytes that a record has as text.
pub(in crate::server) const RECORD_BYTES_MAX: usize = 256 + HELD_MAX * 38;

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Record {
    /// Every fencing token of the run is lower than this.
    pub(in crate::server) tokens_end: u64,
    /// The longest time after the end of the run until all of its clients know of it, in whole
    /// seconds.
    pub(in crate::server) dead_peer_timeout: Duration,
    /// How the run has ended.
    pub(in crate::server) end: RunEnd,
    /// What sessions need to resume; none if the run had none that could.
    pub(in crate::server) sessions: Option<SessionsRecord>,
}

/// How a run has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum RunEnd {
    /// It has not, or nobody could write it down.
    None,
    /// It has stopped cleanly. Every client that held a lock knows that it has lost it, but for
    /// these sessions, which may resume.
    Stopped { held: BTreeSet<ResumeId> },
}

/// What sessions need to resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct SessionsRecord {
    /// The number of the run.
    pub(in crate::server) epoch: u64,
    /// The number of the last run that has granted anything.
    pub(in crate::server) opened: u64,
    pub(in crate::server) key: SecretKey,
}

impl Record {
    pub(in crate::server) fn encode(&self) -> String {
        let (tokens, timeout) = (self.tokens_end, self.dead_peer_timeout.as_secs());
        let heading = if self.sessions.is_some() { HEADING } else { HEADING_BEFORE };
        let mut text = format!("{heading}tokens-end {tokens}\ndead-peer-timeout {timeout}\n");
        // Writing to a string cannot fail.
        if let Some(SessionsRecord { epoch, opened, key }) = &self.sessions {
            let _ = writeln!(text, "epoch {epoch}\nopened {opened}\nkey {}", key.reveal());
        }
        match &self.end {
            RunEnd::None => text.push_str("running\n"),
            RunEnd::Stopped { held } => {
                text.push_str("stopped\n");
                held.iter().for_each(|id| _ = writeln!(text, "held {id}"));
            }
        }
        // Detects a file that was torn or edited. It does not protect against forgery.
        let check = SipHasher13::new().hash(text.as_bytes());
        let _ = writeln!(text, "check {check:016x}");
        text
    }

    /// Reads a text that [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// If it is any other text; the message says what is wrong with it.
    pub(in crate::server) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.is_empty() {
            return Err("it is empty");
        }
        let knows_sessions = bytes.starts_with(HEADING.as_bytes());
        if !knows_sessions
            && !bytes.starts_with(HEADING_BEFORE.as_bytes())
            && bytes.starts_with(HEADING_OF_ANY_VERSION)
        {
            return Err("it is torn, or written by another version of lockd");
        }
        let foreign = "it is not a state file of lockd";
        let text = std::str::from_utf8(bytes).map_err(|_| foreign)?;
        let heading = if knows_sessions { HEADING } else { HEADING_BEFORE };
        let text = text.strip_prefix(heading).ok_or(foreign)?;
        let record = Self::fields(text, knows_sessions).ok_or("it is torn or damaged")?;
        if record.encode().as_bytes() == bytes { Ok(record) } else { Err("it is torn or damaged") }
    }

    fn fields(text: &str, knows_sessions: bool) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key);
        let tokens_end = value("tokens-end ")?.parse().ok()?;
        let dead_peer_timeout = Duration::from_secs(value("dead-peer-timeout ")?.parse().ok()?);
        let sessions = if knows_sessions {
            let epoch = value("epoch ")?.parse().ok()?;
            let opened = value("opened ")?.parse().ok()?;
            Some(SessionsRecord { epoch, opened, key: value("key ")?.parse().ok()? })
        } else {
            None
        };
        let end = match lines.next()? {
            "stopped" => {
                let held = lines.map_while(|line| line.strip_prefix("held ")?.parse().ok()).collect();
                RunEnd::Stopped { held }
            }
            "running" => RunEnd::None,
            _ => return None,
        };
        Some(Self { tokens_end, dead_peer_timeout, end, sessions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ResumeId {
        format!("{number:032x}").parse().unwrap()
    }

    fn records() -> impl Iterator<Item = Record> {
        let sessions = |epoch: u64| SessionsRecord {
            epoch,
            opened: epoch.saturating_sub(1),
            key: format!("{:032x}", u128::MAX / 3).parse().unwrap(),
        };
        let stopped = |count: u64| RunEnd::Stopped { held: (0..count).map(id).collect() };
        [0, 1, 1_790_000_000_000_000, 1 << 53, u64::MAX].into_iter().flat_map(move |tokens_end| {
            let record = |seconds, end, sessions| Record {
                tokens_end,
                dead_peer_timeout: Duration::from_secs(seconds),
                end,
                sessions,
            };
            [
                record(5, stopped(0), None),
                record(25, RunEnd::None, None),
                record(32_767, RunEnd::None, Some(sessions(u64::MAX))),
                record(25, stopped(0), Some(sessions(0))),
                record(25, stopped(3), Some(sessions(7))),
            ]
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
    fn the_longest_record_is_not_too_long() {
        let held = (0..HELD_MAX as u64).map(id).collect();
        let longest = Record { end: RunEnd::Stopped { held }, ..records().last().unwrap() };
        let text = longest.encode();
        assert!(text.len() <= RECORD_BYTES_MAX, "{}", text.len());
        assert_eq!(Record::parse(text.as_bytes()), Ok(longest));
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
        assert!(error(b"lockd state 3\nanything").contains("another version"));
        assert!(error(b"lockd st").contains("not a state file"));
        assert!(error(b"\xff\xfe").contains("not a state file"));
        assert!(error(b"lockd state 1\ntokens-end 5\n").contains("torn"));
        // A number that would be written in another way.
        let text = records().next().unwrap().encode().replace("tokens-end 0", "tokens-end +0");
        assert!(error(text.as_bytes()).contains("torn"));
    }
}
