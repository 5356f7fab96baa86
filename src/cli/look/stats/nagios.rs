//! What Nagios wants to know: whether it is well, in an exit status and a line. Pure.

use std::str::FromStr;

use super::super::super::text::harmless;
use super::figures::Figures;

const STATES: [&str; 4] = ["OK", "WARNING", "CRITICAL", "UNKNOWN"];
const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// What the line always has.
const SHOWN: [&str; 4] = ["connections", "locks", "sharedLocks", "waiting"];

/// Above what number a figure is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Threshold {
    figure: String,
    number: u64,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |(figure, number): (&str, &str)| {
            Some(Self { figure: figure.to_owned(), number: number.parse().ok()? })
        };
        text.split_once('=')
            .and_then(read)
            .ok_or_else(|| "not a figure and a number like waiting=10".to_owned())
    }
}

/// The exit status and the line, with the figures behind a bar for those who draw them.
pub(super) fn judge(
    asked: &Result<Figures, String>,
    warning: &[Threshold],
    critical: &[Threshold],
) -> (u8, String) {
    let figures = match asked {
        Ok(figures) => figures,
        Err(words) => return (CRITICAL, line(CRITICAL, &harmless(&words.replace(['|', '\n'], " ")), "")),
    };
    let (mut code, mut words) = (OK, Vec::new());
    for (level, thresholds) in [(WARNING, warning), (CRITICAL, critical)] {
        for Threshold { figure, number } in thresholds {
            let Some(is) = figures.number(figure) else {
                return (UNKNOWN, line(UNKNOWN, &format!("the server has no figure {figure:?}"), ""));
            };
            if is > *number {
                code = code.max(level);
                words.push(format!("{figure} is {is}, above {number}"));
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
        found.map_or_else(String::new, |threshold| threshold.number.to_string())
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
        assert!(code == 1 && line.starts_with("LOCKD WARNING: waiting is 5, above 4 |"), "{line}");
        assert_eq!(judged(&["waiting=1"], &["connections=6"]).0, 2);
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert_eq!(judged(&["lokcs=1"], &[]).0, 3);
        let silent = judge(&Err("refused|\nno".to_owned()), &[], &[]);
        assert_eq!(silent, (2, "LOCKD CRITICAL: refused  no".to_owned()));
        for text in ["waiting", "waiting=", "waiting=x", "waiting=-1"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
