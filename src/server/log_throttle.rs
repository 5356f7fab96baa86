//! Log lines for what clients can make happen a thousand times a second: one a second at most of each kind. What is
//! not told by itself is counted, and the number is logged a second later, so that the lines always add up. And how
//! clients are called in log lines.

use std::time::{Duration, Instant};

use log::Level;

use super::maintenance::Maintenance;
use crate::broker::SessionInfo;
use crate::os::sync::{Arc, Mutex};

const INTERVAL: Duration = Duration::from_secs(1);
/// How much of a registered name is logged.
const NAME_CHARACTERS_MAX: usize = 64;

/// What is logged of several events at once: of so many of them, in which so much was lost in all.
pub(super) type Summary = fn(u64, u64) -> String;

/// One kind of event.
pub(super) struct LogThrottle {
    kind: Arc<Kind>,
    maintenance: Arc<Maintenance>,
}

/// What is left to the maintenance while the number of events is to be logged.
pub(super) struct Kind {
    summary: Summary,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When something was logged last.
    last: Option<Instant>,
    untold: Option<Untold>,
}

/// The events that have not been told.
struct Untold {
    level: Level,
    events: u64,
    amount: u64,
}

impl LogThrottle {
    pub(super) fn new(maintenance: &Arc<Maintenance>, summary: Summary) -> Self {
        Self { kind: Arc::new(Kind { summary, state: Mutex::default() }), maintenance: maintenance.clone() }
    }

    /// Warns at once, or counts.
    pub(super) fn warn(&self, text: impl FnOnce() -> String) {
        self.note(Level::Warn, 0, text);
    }

    /// Informs at once of an event in which so much was lost, or counts and adds.
    pub(super) fn info(&self, amount: u64, text: impl FnOnce() -> String) {
        self.note(Level::Info, amount, text);
    }

    fn note(&self, level: Level, amount: u64, text: impl FnOnce() -> String) {
        match self.kind.count(Instant::now(), level, amount) {
            Counted::Tell => log::log!(level, "{}", text()),
            Counted::First => self.maintenance.tell_later(self.kind.clone()),
            Counted::Further => {}
        }
    }
}

/// What is to be done of an event.
#[derive(Debug, PartialEq, Eq)]
enum Counted {
    Tell,
    /// It is the first that is not told by itself.
    First,
    Further,
}

impl Kind {
    fn count(&self, now: Instant, level: Level, amount: u64) -> Counted {
        let mut state = self.state.lock();
        if let Some(untold) = &mut state.untold {
            untold.events += 1;
            untold.amount += amount;
            return Counted::Further;
        }
        if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.untold = Some(Untold { level, events: 1, amount });
            return Counted::First;
        }
        state.last = Some(now);
        Counted::Tell
    }

    /// Logs how many events there were, if it is time for that, or `at_once`. Returns how long it is until then.
    pub(super) fn tell(&self, now: Instant, at_once: bool) -> Option<Duration> {
        let (level, text) = match self.take(now, at_once) {
            Ok(summary) => summary?,
            Err(rest) => return Some(rest),
        };
        log::log!(level, "{text}");
        None
    }

    fn take(&self, now: Instant, at_once: bool) -> Result<Option<(Level, String)>, Duration> {
        let mut state = self.state.lock();
        let rest = state.last.map_or(Duration::ZERO, |last| (last + INTERVAL).saturating_duration_since(now));
        if !at_once && !rest.is_zero() {
            return Err(rest);
        }
        state.last = Some(now);
        let untold = state.untold.take();
        Ok(untold.map(|untold| (untold.level, (self.summary)(untold.events, untold.amount))))
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
    fn what_is_not_told_by_itself_is_told_together_a_second_later() {
        let kind = Kind { summary: |events, amount| format!("{events}, {amount}"), state: Mutex::default() };
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let count = |millis, amount| kind.count(at(millis), Level::Info, amount);
        assert_eq!(count(0, 7), Counted::Tell);
        assert_eq!(count(1, 2), Counted::First);
        assert_eq!(count(900, 3), Counted::Further);
        assert_eq!(kind.take(at(900), false), Err(Duration::from_millis(100)));
        // It is only a matter of time, and nothing is told twice, nor out of order.
        assert_eq!(count(1050, 1), Counted::Further);
        assert_eq!(kind.take(at(1100), false), Ok(Some((Level::Info, "3, 6".to_owned()))));
        assert_eq!(kind.take(at(1100), true), Ok(None));
        assert_eq!(count(1200, 1), Counted::First);
        assert_eq!(kind.take(at(1200), true), Ok(Some((Level::Info, "1, 1".to_owned()))));
        assert_eq!(count(2200, 1), Counted::Tell);
    }

    #[test]
    fn a_name_can_neither_end_the_line_nor_its_quotes_nor_be_long() {
        let shown = harmless(b"a\r\n\x1b[2J\"\xff\xe2\x80\xae\0");
        assert!(!shown.chars().any(char::is_control) && !shown.contains('\u{202e}'), "{shown}");
        assert_eq!(shown.replace("\\\"", "").matches('"').count(), 0, "{shown}");
        assert_eq!(harmless("ä".as_bytes()), "ä");
        assert_eq!(harmless("ä".repeat(1000).as_bytes()).chars().count(), NAME_CHARACTERS_MAX + 1);
    }
}
