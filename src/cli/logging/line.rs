//! The text of a log record. Pure; knows neither where lines are written nor when.

use std::fmt::{self, Write};

use jiff::Timestamp;
use log::Level;

/// The longest line in bytes, without the ellipsis that shows that it was cut, and without its
/// newline. Records contain text from clients, which can have any length.
const BYTES_MAX: usize = 16 << 10;
/// The indentation of the second and further lines of a record.
const INDENT: &str = "    ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogStyle {
    /// With the time and the level.
    Plain,
    /// For the journal, which adds the time itself, and reads the level from the beginning of the
    /// line (sd-daemon(3)).
    Journal,
}

/// Formats a record, with its final newline.
pub(super) fn format_record(
    style: LogStyle,
    time: Timestamp,
    level: Level,
    text: fmt::Arguments<'_>,
) -> String {
    let mut line = BoundedLine { text: String::new(), indent: style == LogStyle::Plain };
    // It fails only if the line is full, and then it has been cut.
    let _ = match style {
        LogStyle::Plain => write!(line, "[{time:.0} {level:<5}] {text}"),
        LogStyle::Journal => write!(line, "<{}>{text}", priority(level)),
    };
    line.text.push('\n');
    line.text
}

/// The priority in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A buffer that takes text up to [`BYTES_MAX`], and then fails.
struct BoundedLine {
    text: String,
    indent: bool,
}

impl BoundedLine {
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

impl Write for BoundedLine {
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

    fn line(style: LogStyle, level: Level, text: &str) -> String {
        format_record(style, Timestamp::from_second(1_700_000_000).unwrap(), level, format_args!("{text}"))
    }

    #[test]
    fn a_line_has_time_level_and_text() {
        assert_eq!(line(LogStyle::Plain, Level::Info, "on"), "[2023-11-14T22:13:20Z INFO ] on\n");
        assert_eq!(line(LogStyle::Plain, Level::Error, "off"), "[2023-11-14T22:13:20Z ERROR] off\n");
    }

    #[test]
    fn further_lines_of_a_record_are_indented() {
        assert_eq!(
            line(LogStyle::Plain, Level::Warn, "a\nb\n"),
            "[2023-11-14T22:13:20Z WARN ] a\n    b\n    \n"
        );
    }

    #[test]
    fn a_line_for_the_journal_has_the_level_and_no_time() {
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        let lines = levels.map(|level| line(LogStyle::Journal, level, "on"));
        assert_eq!(lines, ["<3>on\n", "<4>on\n", "<6>on\n", "<7>on\n", "<7>on\n"]);
    }

    #[test]
    fn a_long_line_is_cut_between_two_characters() {
        for style in [LogStyle::Plain, LogStyle::Journal] {
            let text = line(style, Level::Info, &"ä".repeat(1 << 20));
            assert!(text.len() > BYTES_MAX - 2 && text.len() <= BYTES_MAX + "…\n".len(), "{}", text.len());
            assert!(text.ends_with("ä…\n"));
        }
        let newlines = line(LogStyle::Plain, Level::Info, &"\n".repeat(1 << 20));
        assert!(newlines.len() <= BYTES_MAX + "…\n".len(), "{}", newlines.len());
    }
}
