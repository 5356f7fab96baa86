//! What a record of the log looks like as a line. Pure; knows neither where lines go nor when.

use std::fmt::{self, Write};

use jiff::Timestamp;
use log::Level;

/// The longest line, in bytes, but for the mark that it was cut and its end. What clients send can be of any
/// length; what is logged of it must not be.
const BYTES_MAX: usize = 16 << 10;
/// How far the further lines of one record are indented.
const INDENT: &str = "    ";

/// For whom lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Style {
    /// With time and level.
    Plain,
    /// As the journal wants it: it knows the time itself, and takes the level from the beginning of the line
    /// (sd-daemon(3)).
    Journal,
}

/// The line, with its end.
pub(super) fn of(style: Style, time: Timestamp, level: Level, text: fmt::Arguments<'_>) -> String {
    let mut line = Bounded { text: String::new(), indent: style == Style::Plain };
    // It only fails when the line is full, which is no error.
    let _ = match style {
        Style::Plain => write!(line, "[{time:.0} {level:<5}] {text}"),
        Style::Journal => write!(line, "<{}>{text}", priority(level)),
    };
    line.text.push('\n');
    line.text
}

/// As syslog(3) counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Takes text up to [`BYTES_MAX`], and then no more.
struct Bounded {
    text: String,
    indent: bool,
}

impl Bounded {
    fn push(&mut self, text: &str) -> fmt::Result {
        let room = BYTES_MAX.saturating_sub(self.text.len());
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        self.text.push_str(&text[..text.floor_char_boundary(room)]);
        self.text.push('…');
        Err(fmt::Error)
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.indent {
            return self.push(text);
        }
        for (number, part) in text.split('\n').enumerate() {
            if number > 0 {
                self.push("\n")?;
                self.push(INDENT)?;
            }
            self.push(part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(style: Style, level: Level, text: &str) -> String {
        of(style, Timestamp::from_second(1_700_000_000).unwrap(), level, format_args!("{text}"))
    }

    #[test]
    fn a_line_has_time_level_and_text() {
        assert_eq!(line(Style::Plain, Level::Info, "on"), "[2023-11-14T22:13:20Z INFO ] on\n");
        assert_eq!(line(Style::Plain, Level::Error, "off"), "[2023-11-14T22:13:20Z ERROR] off\n");
    }

    #[test]
    fn further_lines_are_indented() {
        assert_eq!(
            line(Style::Plain, Level::Warn, "a\nb\n"),
            "[2023-11-14T22:13:20Z WARN ] a\n    b\n    \n"
        );
    }

    #[test]
    fn the_journal_is_told_the_level_and_no_time() {
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        let lines = levels.map(|level| line(Style::Journal, level, "on"));
        assert_eq!(lines, ["<3>on\n", "<4>on\n", "<6>on\n", "<7>on\n", "<7>on\n"]);
    }

    #[test]
    fn a_long_line_is_cut_between_two_characters() {
        for style in [Style::Plain, Style::Journal] {
            let text = line(style, Level::Info, &"ä".repeat(1 << 20));
            assert!(text.len() > BYTES_MAX - 2 && text.len() <= BYTES_MAX + "…\n".len(), "{}", text.len());
            assert!(text.ends_with("ä…\n"));
        }
        let newlines = line(Style::Plain, Level::Info, &"\n".repeat(1 << 20));
        assert!(newlines.len() <= BYTES_MAX + "…\n".len(), "{}", newlines.len());
    }
}
