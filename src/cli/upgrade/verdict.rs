//! What the next version says of a state that it has tried to take over: a line on its standard
//! output, which the running version reads. So later versions may only add to it. Pure.

use serde::{Deserialize, Serialize};

use crate::cli::text::harmless;

/// What the line begins with.
const BEGIN: &str = "lockd-upgrade ";
/// How much of another output is shown.
const SHOWN_MAX: usize = 500;

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It can take over.
    Ready {
        /// The version that says so.
        version: String,
        /// The dead-peer timeout that it will have, in seconds. It must be on record before it
        /// serves.
        dead_peer_timeout: u64,
        /// The process that says so. If it is not the one that was executed, that could not take
        /// over: the connections are handed over within one process.
        #[serde(default)]
        pid: Option<u32>,
    },
    /// It cannot, for this reason.
    Refused(String),
}

impl Verdict {
    /// The line, with its end.
    pub(crate) fn line(&self) -> String {
        // Texts and numbers are always JSON.
        format!("{BEGIN}{}\n", serde_json::to_string(self).unwrap_or_default())
    }

    /// Finds the verdict in all that a program has written.
    ///
    /// # Errors
    /// If there is none: the end of what it has written instead.
    pub(crate) fn find(output: &[u8]) -> Result<Self, String> {
        let output = String::from_utf8_lossy(output);
        let verdict = output.lines().find_map(|line| line.strip_prefix(BEGIN));
        let Some(verdict) = verdict else {
            let lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
            let shown: Vec<char> = lines.collect::<Vec<_>>().join("; ").chars().collect();
            let shown: String = shown[shown.len().saturating_sub(SHOWN_MAX)..].iter().collect();
            let shown = harmless(&shown);
            return Err(if shown.is_empty() { "it says nothing".to_owned() } else { shown });
        };
        serde_json::from_str(verdict).map_err(|error| format!("its verdict makes no sense: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_found_among_other_lines() {
        for verdict in [
            Verdict::Ready { version: "9".to_owned(), dead_peer_timeout: 25, pid: Some(3) },
            Verdict::Refused("no\nroom".to_owned()),
        ] {
            assert_eq!(verdict.line().matches('\n').count(), 1);
            let output = format!("a warning\n{}the rest", verdict.line());
            assert_eq!(Verdict::find(output.as_bytes()), Ok(verdict));
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let line = "lockd-upgrade {\"ready\":{\"version\":\"9\",\"dead_peer_timeout\":25,\"more\":1}}\n";
        assert!(matches!(Verdict::find(line.as_bytes()), Ok(Verdict::Ready { .. })));
    }

    #[test]
    fn without_a_verdict_the_end_of_the_output_is_shown() {
        assert_eq!(Verdict::find(b"a\n\n \nb\x1b\xff\n"), Err("a; b\\u001b\u{fffd}".to_owned()));
        assert_eq!(Verdict::find(b" \n"), Err("it says nothing".to_owned()));
        assert_eq!(Verdict::find(&[b'x'; 5000]), Err("x".repeat(SHOWN_MAX)));
        assert!(Verdict::find(b"lockd-upgrade ok").unwrap_err().contains("makes no sense"));
    }
}
