//! Text for people: names, owners and times in a form that is safe to show in a terminal. Pure;
//! prints nothing.
//!
//! Names are arbitrary bytes, and clients choose what their owners are called. None of it may
//! control the terminal, or look like anything but a name.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use lockd::wire::message::{ListedHolder, ListedLock};

/// Parses a number of seconds from the command line, which may have a fraction.
///
/// # Errors
/// If it is not a number from 0 up, or larger than a time can be.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let number = number.ok_or("not a number of seconds from 0 up")?;
    Duration::try_from_secs_f64(number).map_err(|_| "too large".to_owned())
}

/// The bytes as visible text. Bytes and characters that are not visible are written as escapes, and
/// so is the backslash with which escapes begin.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '\'' | '"') { text.push(c) } else { text.extend(c.escape_debug()) }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if text.is_empty() { "\"\"".to_owned() } else { text }
}

/// Text in which all control characters but newlines are written as escapes: for JSON and messages
/// from others. JSON keeps its meaning.
pub(super) fn harmless(text: &str) -> String {
    let mut harmless = String::new();
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            // Writing to a string cannot fail. No control character has more than four digits.
            let _ = write!(harmless, "\\u{:04x}", u32::from(c));
        } else {
            harmless.push(c);
        }
    }
    harmless
}

/// An argument as [`printable`] text.
pub(super) fn printable_argument(argument: &OsStr) -> String {
    printable(argument.as_bytes())
}

pub(super) fn name_of(lock: &ListedLock) -> String {
    // A name that cannot be decoded is shown in the form that the server has sent for people.
    lock.name().map_or_else(|| printable(lock.lock_name.as_bytes()), |name| printable(name.as_bytes()))
}

/// The address of a holder. If it has no connection now, and may come back, that is said, too.
pub(super) fn address_of(holder: &ListedHolder) -> String {
    let address = printable(holder.address.as_bytes());
    if holder.in_doubt.is_some() { format!("{address} (in doubt)") } else { address }
}

/// A length of time in seconds, rounded for people: the longer, the coarser.
pub(super) fn age(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_secs();
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, whole / 3600, whole / 60) {
        (1.., ..) => format!("{days}d{hours:02}h"),
        (_, 1.., _) => format!("{hours}h{minutes:02}m"),
        (.., 1..) => format!("{minutes}m{:02}s", whole % 60),
        _ => format!("{whole}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_controls_the_terminal() {
        for (name, shown) in [
            (&b"invoice/47 11"[..], "invoice/47 11"),
            (b"a'b\"c", "a'b\"c"),
            ("größe".as_bytes(), "größe"),
            (b"\x1b[2J\n\t\x7f", r"\u{1b}[2J\n\t\u{7f}"),
            ("\u{9b}2J\u{202e}x".as_bytes(), r"\u{9b}2J\u{202e}x"),
            (b"\xff\x00", r"\xff\0"),
            (b"a\\n", r"a\\n"),
            (b"", "\"\""),
        ] {
            assert_eq!(printable(name), shown);
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"a\u{9b}": "\u{7f}\n\\ü"});
        let shown = harmless(&value.to_string());
        assert!(!shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(harmless("a\u{1b}b\nc"), "a\\u001bb\nc");
    }

    #[test]
    fn long_times_are_shown_more_coarsely() {
        for (seconds, shown) in [
            (-1.0, "0.0s"),
            (0.26, "0.3s"),
            (59.9, "59s"),
            (61.0, "1m01s"),
            (3_720.0, "1h02m"),
            (90_000.0, "1d01h"),
            (f64::INFINITY, "213503982334601d07h"),
        ] {
            assert_eq!(age(seconds), shown);
        }
    }

    #[test]
    fn seconds_are_numbers_from_0_up() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for text in ["", "-1", "nan", "inf", "5s"] {
            assert_eq!(seconds(text).unwrap_err(), "not a number of seconds from 0 up", "{text}");
        }
        assert_eq!(seconds("1e300").unwrap_err(), "too large");
        assert_eq!(seconds("-0"), Ok(Duration::ZERO));
    }
}
