//! Log lines for what clients can make happen a thousand times a second: one a second at most of each kind,
//! and how many there were meanwhile. And how clients are called in log lines.

use std::time::{Duration, Instant};

use log::Level;

use crate::broker::SessionInfo;
use crate::broker::sync::Mutex;

const INTERVAL: Duration = Duration::from_secs(1);
/// How much of a registered name is logged.
const NAME_CHARACTERS_MAX: usize = 64;

/// One kind of event.
#[derive(Default)]
pub(super) struct Seldom {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    kept_quiet: u64,
}

impl Seldom {
    /// Warns, unless it has said something within the last second.
    pub(super) fn warn(&self, text: impl FnOnce() -> String) {
        self.say(Level::Warn, text);
    }

    /// Informs, unless it has said something within the last second.
    pub(super) fn info(&self, text: impl FnOnce() -> String) {
        self.say(Level::Info, text);
    }

    fn say(&self, level: Level, text: impl FnOnce() -> String) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.kept_quiet += 1;
            return;
        }
        state.last = Some(now);
        let kept_quiet = std::mem::take(&mut state.kept_quiet);
        drop(state);
        match kept_quiet {
            0 => log::log!(level, "{}", text()),
            more => log::log!(level, "{} (and {more} times more before)", text()),
        }
    }
}

/// A client in a log line: its address, and the name it has registered. That is whatever the client sent, so
/// it is shortened, and nothing in it can begin another line or do anything to a terminal.
pub(super) fn who(info: &SessionInfo) -> String {
    match info.name() {
        None => info.address().to_owned(),
        Some(name) => format!("{} \"{}\"", info.address(), harmless(&name)),
    }
}

fn harmless(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text.chars().take(NAME_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(NAME_CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_neither_end_the_line_nor_its_quotes_nor_be_long() {
        let shown = harmless(b"a\r\n\x1b[2J\"\xff\xe2\x80\xae\0");
        assert!(!shown.chars().any(char::is_control) && !shown.contains('\u{202e}'), "{shown}");
        assert_eq!(shown.replace("\\\"", "").matches('"').count(), 0, "{shown}");
        assert_eq!(harmless("ä".as_bytes()), "ä");
        assert_eq!(harmless("ä".repeat(1000).as_bytes()).chars().count(), NAME_CHARACTERS_MAX + 1);
    }
}
