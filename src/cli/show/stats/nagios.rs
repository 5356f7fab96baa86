//! What Nagios wants to know: whether it is well, in an exit status and a line. Pure.

use std::str::FromStr;

use crate::cli::show::stats::figures::Figures;
use crate::cli::text::harmless;

const STATES: [&str; 4] = ["OK", "WARNING", "CRITICAL", "UNKNOWN"];
const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// What the line always has.
const SHOWN: [&str; 4] = ["connections", "locks", "sharedLocks", "waiting"];

/// In what range a figure is well.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Threshold {
    figure: String,
    range: Range,
}

/// A range of the Monitoring Plugins Guidelines: `[@][START:][END]`.
#[derive(Clone, Debug, PartialEq)]
struct Range {
    /// As it was given.
    text: String,
    start: f64,
    end: f64,
    /// Whether what is in it is not well, instead of what is not.
    is_inverted: bool,
}

impl Range {
    fn read(text: &str) -> Option<Self> {
        let (rest, is_inverted) = text.strip_prefix('@').map_or((text, false), |rest| (rest, true));
        let (start, end) = match rest.split_once(':') {
            Some(("~", end)) => (f64::NEG_INFINITY, end),
            Some((start, end)) => (number(start)?, end),
            None => (0.0, rest),
        };
        let is_open = end.is_empty() && rest.contains(':');
        let end = if is_open { f64::INFINITY } else { number(end)? };
        (start <= end).then(|| Self { text: text.to_owned(), start, end, is_inverted })
    }

    fn is_well(&self, is: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "limits are no more exact than this")]
        let is = is as f64;
        (self.start..=self.end).contains(&is) != self.is_inverted
    }
}

/// Digits, with a sign and a fraction if need be; no infinity, and nothing else that Rust takes for a number.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte));
    text.parse().ok().filter(|_| is_plain)
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |(figure, range): (&str, &str)| {
            Some(Self { figure: figure.to_owned(), range: Range::read(range)? })
        };
        text.split_once('=')
            .filter(|(figure, _)| !figure.is_empty())
            .and_then(read)
            .ok_or_else(|| "not a figure and a range like waiting=10, waiting=10: or waiting=@1:5".to_owned())
    }
}

/// The figure for which two of these give a range.
pub(super) fn given_twice(thresholds: &[Threshold]) -> Option<&str> {
    let figures = || thresholds.iter().map(|threshold| threshold.figure.as_str());
    figures()
        .enumerate()
        .find(|(index, figure)| figures().take(*index).any(|other| other == *figure))
        .map(|(_, figure)| figure)
}

/// The exit status and the line when a mistake keeps everything from being known.
pub(super) fn unknown(words: &str) -> (u8, String) {
    (UNKNOWN, line(UNKNOWN, &in_one_line(words), ""))
}

/// Without what would end the line, or what Nagios takes for the end of the words.
fn in_one_line(words: &str) -> String {
    harmless(&words.replace(['|', '\n'], " "))
}

/// The exit status and the line, with the figures behind a bar for those who draw them.
pub(super) fn judge(
    asked: &Result<Figures, String>,
    warning: &[Threshold],
    critical: &[Threshold],
) -> (u8, String) {
    let figures = match asked {
        Ok(figures) => figures,
        Err(words) => return (CRITICAL, line(CRITICAL, &in_one_line(words), "")),
    };
    let (mut code, mut words) = (OK, Vec::new());
    for (level, thresholds) in [(WARNING, warning), (CRITICAL, critical)] {
        for Threshold { figure, range } in thresholds {
            let Some(is) = figures.number(figure) else {
                return unknown(&format!("the server has no figure {figure:?}"));
            };
            if !range.is_well(is) {
                code = code.max(level);
                let place = if range.is_inverted { "within" } else { "outside of" };
                words.push(format!("{figure} is {is}, {place} {}", range.text.trim_start_matches('@')));
            }
        }
    }
    if words.is_empty() {
        let shown = SHOWN.iter().filter_map(|key| Some(format!("{key} {}", figures.number(key)?)));
        words.extend(shown);
    }
    (code, line(code, &words.join(", "), &performance(figures, warning, critical)))
}

fn line(code: u8, words: &str, performance: &str) -> String {
    let state = STATES.get(usize::from(code)).unwrap_or(&"");
    format!("LOCKD {state}: {words}{performance}")
}

fn performance(figures: &Figures, warning: &[Threshold], critical: &[Threshold]) -> String {
    let limit = |thresholds: &[Threshold], key: &str| {
        let found = thresholds.iter().find(|threshold| threshold.figure == key);
        found.map_or_else(String::new, |threshold| threshold.range.text.clone())
    };
    let one = |key: &&str| {
        let number = figures.number(key)?;
        Some(format!(" {key}={number};{};{};0", limit(warning, key), limit(critical, key)))
    };
    format!(" |{}", SHOWN.iter().filter_map(one).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(warning: &[&str], critical: &[&str]) -> (u8, String) {
        let told = r#"{"status":"ok","connections":7,"locks":3,"sharedLocks":0,"waiting":5}"#;
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        judge(&Figures::read(told), &read(warning), &read(critical))
    }

    #[test]
    fn the_worst_counts() {
        let (code, line) = judged(&["waiting=5"], &["waiting=10"]);
        let figures = "connections=7;;;0 locks=3;;;0 sharedLocks=0;;;0 waiting=5;5;10;0";
        let words = "connections 7, locks 3, sharedLocks 0, waiting 5";
        assert_eq!((code, line), (0, format!("LOCKD OK: {words} | {figures}")));
        let (code, line) = judged(&["waiting=4", "locks=9"], &[]);
        assert!(code == 1 && line.starts_with("LOCKD WARNING: waiting is 5, outside of 4 |"), "{line}");
        assert_eq!(judged(&["waiting=1"], &["connections=6"]).0, 2);
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert_eq!(judged(&["lokcs=1"], &[]).0, 3);
        let silent = judge(&Err("refused|\nno".to_owned()), &[], &[]);
        assert_eq!(silent, (2, "LOCKD CRITICAL: refused  no".to_owned()));
    }

    /// The values from 0 to 30 that are not well; those of the guidelines' examples.
    #[test]
    fn ranges_are_those_of_the_guidelines() {
        let alerts = |text: &str| {
            let range = Range::read(text).unwrap();
            (0..=30).filter(|is| !range.is_well(*is)).collect::<Vec<u64>>()
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
            assert_eq!(Range::read(text), None, "{text}");
        }
        for text in ["waiting", "waiting=", "waiting=x", "=1"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
