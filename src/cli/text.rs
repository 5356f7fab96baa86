//! Words for people: names, owners and times as they may be shown in a terminal. Pure; prints nothing.
//!
//! Names are any bytes, and owners call themselves what they like: nothing of it may drive the terminal, or
//! pass for something else than a name.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use lockd::wire::message::ListedLock;

/// Seconds given on the command line, fractions allowed.
///
/// # Errors
/// If it is no number from 0 up.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok();
    let seconds = number.and_then(|number| Duration::try_from_secs_f64(number).ok());
    seconds.ok_or_else(|| "not a number of seconds from 0 up".to_owned())
}

/// The bytes as text in which every character can be seen: what cannot is written as an escape, and so is
/// the backslash that escapes begin with.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '\'' | '"') { text.push(c) } else { text.extend(c.escape_debug()) }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if text.is_empty() { "\"\"".to_owned() } else { text }
}

/// Text without control characters but its ends of lines: what others have written as JSON, or in a reason. JSON
/// stays the same JSON.
pub(super) fn harmless(text: &str) -> String {
    let mut harmless = String::new();
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            // Writing to a string does not fail. None has more digits.
            let _ = write!(harmless, "\\u{:04x}", u32::from(c));
        } else {
            harmless.push(c);
        }
    }
    harmless
}

/// An argument, as [`printable`].
pub(super) fn printable_argument(argument: &OsStr) -> String {
    printable(argument.as_bytes())
}

/// The name of a listed lock.
pub(super) fn name_of(lock: &ListedLock) -> String {
    // One that makes no sense is shown as the server has put it for people.
    lock.name().map_or_else(|| printable(lock.lock_name.as_bytes()), |name| printable(name.as_bytes()))
}

/// A number of seconds, as exactly as anybody wants to know.
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
    fn nothing_in_a_name_drives_the_terminal() {
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
    fn json_stays_what_it_says() {
        let value = serde_json::json!({"a\u{9b}": "\u{7f}\n\\ü"});
        let shown = harmless(&value.to_string());
        assert!(!shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(harmless("a\u{1b}b\nc"), "a\\u001bb\nc");
    }

    #[test]
    fn ages_are_as_exact_as_they_are_young() {
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
        for text in ["", "-1", "nan", "inf", "1e30", "5s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
