//! The result of a check for Nagios: an exit status and a line. Pure.

use std::str::FromStr;

use crate::cli::show::stats::reply::StatsReply;
use crate::cli::text::harmless;

const STATES: [&str; 4] = ["OK", "WARNING", "CRITICAL", "UNKNOWN"];
const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// The statistics that are in every line.
const ALWAYS_SHOWN: [&str; 4] = ["connections", "locks", "sharedLocks", "waiting"];

/// A statistic and the range in which it causes no alert. The range is one of the Monitoring
/// Plugins Guidelines: `[@][START:][END]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Threshold {
    key: String,
    /// The range as it was given.
    range: String,
    start: f64,
    end: f64,
    /// Alerts for values in the range instead of values outside of it.
    is_inverted: bool,
}

impl Threshold {
    fn read(key: &str, range: &str) -> Option<Self> {
        let (rest, is_inverted) = range.strip_prefix('@').map_or((range, false), |rest| (rest, true));
        let (start, end) = match rest.split_once(':') {
            Some(("~", end)) => (f64::NEG_INFINITY, end),
            Some((start, end)) => (number(start)?, end),
            None => (0.0, rest),
        };
        let is_open = end.is_empty() && rest.contains(':');
        let end = if is_open { f64::INFINITY } else { number(end)? };
        let is_valid = !key.is_empty() && start <= end;
        is_valid.then(|| Self { key: key.to_owned(), range: range.to_owned(), start, end, is_inverted })
    }

    fn is_ok(&self, value: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "limits are no more exact than this")]
        let value = value as f64;
        (self.start..=self.end).contains(&value) != self.is_inverted
    }
}

/// Digits, with an optional sign and fraction; not `inf` and the other texts that Rust takes for
/// numbers.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte));
    text.parse().ok().filter(|_| is_plain)
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = text.split_once('=').and_then(|(key, range)| Self::read(key, range));
        read.ok_or_else(|| {
            "not a statistic and a range like waiting=10, waiting=10: or waiting=@1:5".to_owned()
        })
    }
}

/// The key of a statistic for which two of these give a range.
pub(super) fn given_twice(thresholds: &[Threshold]) -> Option<&str> {
    let keys = || thresholds.iter().map(|threshold| threshold.key.as_str());
    keys().enumerate().find(|(index, key)| keys().take(*index).any(|other| other == *key)).map(|(_, key)| key)
}

/// The exit status and the line if a mistake keeps the check from being made.
pub(super) fn unknown(why: &str) -> (u8, String) {
    (UNKNOWN, line(UNKNOWN, &in_one_line(why), ""))
}

/// The text without line ends, and without the bar at which Nagios ends it.
fn in_one_line(text: &str) -> String {
    harmless(&text.replace(['|', '\n'], " "))
}

/// Checks what a server has replied; a server that has not replied is CRITICAL. Gives the exit
/// status and the line. After a bar, the line has the numbers for programs that draw them
/// ("performance data").
pub(super) fn check(
    reply: &Result<StatsReply, String>,
    warning: &[Threshold],
    critical: &[Threshold],
) -> (u8, String) {
    let reply = match reply {
        Ok(reply) => reply,
        Err(why) => return (CRITICAL, line(CRITICAL, &in_one_line(why), "")),
    };
    let (mut code, mut parts) = (OK, Vec::new());
    for (level, thresholds) in [(WARNING, warning), (CRITICAL, critical)] {
        for threshold in thresholds {
            let Threshold { key, range, is_inverted, .. } = threshold;
            let Some(value) = reply.number(key) else {
                return unknown(&format!("the server has no statistic {key:?}"));
            };
            if !threshold.is_ok(value) {
                code = code.max(level);
                let place = if *is_inverted { "within" } else { "outside of" };
                parts.push(format!("{key} is {value}, {place} {}", range.trim_start_matches('@')));
            }
        }
    }
    if parts.is_empty() {
        parts.extend(ALWAYS_SHOWN.iter().filter_map(|key| Some(format!("{key} {}", reply.number(key)?))));
    }
    (code, line(code, &parts.join(", "), &performance(reply, warning, critical)))
}

fn line(code: u8, text: &str, performance: &str) -> String {
    let state = STATES.get(usize::from(code)).unwrap_or(&"");
    format!("LOCKD {state}: {text}{performance}")
}

fn performance(reply: &StatsReply, warning: &[Threshold], critical: &[Threshold]) -> String {
    let limit = |thresholds: &[Threshold], key: &str| {
        let found = thresholds.iter().find(|threshold| threshold.key == key);
        found.map_or_else(String::new, |threshold| threshold.range.clone())
    };
    let one = |key: &&str| {
        let number = reply.number(key)?;
        Some(format!(" {key}={number};{};{};0", limit(warning, key), limit(critical, key)))
    };
    format!(" |{}", ALWAYS_SHOWN.iter().filter_map(one).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(warning: &[&str], critical: &[&str]) -> (u8, String) {
        let result = r#"{"status":"ok","connections":7,"locks":3,"sharedLocks":0,"waiting":5}"#;
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        check(&StatsReply::read(result), &read(warning), &read(critical))
    }

    #[test]
    fn the_worst_state_counts() {
        let (code, line) = checked(&["waiting=5"], &["waiting=10"]);
        let numbers = "connections=7;;;0 locks=3;;;0 sharedLocks=0;;;0 waiting=5;5;10;0";
        let text = "connections 7, locks 3, sharedLocks 0, waiting 5";
        assert_eq!((code, line), (0, format!("LOCKD OK: {text} | {numbers}")));
        let (code, line) = checked(&["waiting=4", "locks=9"], &[]);
        assert!(code == 1 && line.starts_with("LOCKD WARNING: waiting is 5, outside of 4 |"), "{line}");
        assert_eq!(checked(&["waiting=1"], &["connections=6"]).0, 2);
    }

    #[test]
    fn an_unknown_statistic_and_a_silent_server_have_states_of_their_own() {
        assert_eq!(checked(&["lokcs=1"], &[]).0, 3);
        let silent = check(&Err("refused|\nno".to_owned()), &[], &[]);
        assert_eq!(silent, (2, "LOCKD CRITICAL: refused  no".to_owned()));
    }

    /// Checks which values from 0 to 30 alert, for the examples in the guidelines.
    #[test]
    fn ranges_are_those_of_the_guidelines() {
        let alerts = |text: &str| {
            let threshold = Threshold::read("x", text).unwrap();
            (0..=30).filter(|value| !threshold.is_ok(*value)).collect::<Vec<u64>>()
        };
        let all = |range: std::ops::RangeInclusive<u64>| range.collect::<Vec<u64>>();
        assert_eq!(alerts("10"), all(11..=30));
        assert_eq!(alerts("10:"), all(0..=9));
        assert_eq!(alerts("~:10"), all(11..=30));
        assert_eq!(alerts("10:20"), [all(0..=9), all(21..=30)].concat());
        assert_eq!(alerts("@10:20"), all(10..=20));
        assert_eq!(alerts("@1:5"), all(1..=5));
        assert_eq!(alerts("0"), all(1..=30));
        assert!(alerts("~:").is_empty());
        assert_eq!(alerts("@5:"), all(5..=30));
        assert_eq!(alerts("-5:2.5"), all(3..=30));
        for text in ["", "x", "@", ":", "20:10", "-1", "1:2:3", "inf", "nan:", "1e3", "~", "+5", "10:~"] {
            assert_eq!(Threshold::read("x", text), None, "{text}");
        }
        for text in ["waiting", "waiting=", "waiting=x", "=1"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
