//! Log lines for events that clients can cause a thousand times a second: at most one line a second
//! for each kind of event. Events without a line of their own are counted, and the count is logged
//! a second later, so that the lines always add up.

use std::time::{Duration, Instant};

use log::Level;

use super::maintenance::Maintenance;
use crate::os::sync::{Arc, Mutex};

const INTERVAL: Duration = Duration::from_secs(1);

/// One kind of event.
pub(super) struct LogThrottle {
    kind: Arc<EventKind>,
    maintenance: Arc<Maintenance>,
}

struct EventKind {
    /// Makes one log line for a number of events and the sum of their amounts.
    summary: fn(u64, u64) -> String,
    counted: Mutex<CountedEvents>,
}

/// The events since the last line that have no line of their own.
struct CountedEvents {
    last_line: Option<Instant>,
    level: Level,
    events: u64,
    amount: u64,
}

/// What is to be done about an event.
#[derive(Debug, PartialEq, Eq)]
enum EventAction {
    Log,
    /// It is the first one that is only counted: the count has to be logged later.
    LogCountLater,
    /// It has been counted with others.
    Nothing,
}

impl LogThrottle {
    pub(super) fn new(maintenance: &Arc<Maintenance>, summary: fn(u64, u64) -> String) -> Self {
        Self { kind: Arc::new(EventKind::new(summary)), maintenance: maintenance.clone() }
    }

    /// Logs a warning now, or counts it.
    pub(super) fn warn(&self, text: impl FnOnce() -> String) {
        self.note(Level::Warn, 0, text);
    }

    /// Logs an information now, or counts it and adds its amount to those of the others.
    pub(super) fn info(&self, amount: u64, text: impl FnOnce() -> String) {
        self.note(Level::Info, amount, text);
    }

    fn note(&self, level: Level, amount: u64, text: impl FnOnce() -> String) {
        match self.kind.count(Instant::now(), level, amount) {
            EventAction::Log => log::log!(level, "{}", text()),
            EventAction::LogCountLater => {
                let kind = self.kind.clone();
                self.maintenance.run_later(move |is_stopping| kind.log_count(Instant::now(), is_stopping));
            }
            EventAction::Nothing => {}
        }
    }
}

impl EventKind {
    fn new(summary: fn(u64, u64) -> String) -> Self {
        let counted = CountedEvents { last_line: None, level: Level::Info, events: 0, amount: 0 };
        Self { summary, counted: Mutex::new(counted) }
    }

    fn count(&self, now: Instant, level: Level, amount: u64) -> EventAction {
        let mut counted = self.counted.lock();
        let is_first = counted.events == 0;
        if is_first && counted.last_line.is_none_or(|last| now.duration_since(last) >= INTERVAL) {
            counted.last_line = Some(now);
            return EventAction::Log;
        }
        if is_first {
            counted.level = level;
        }
        counted.events += 1;
        counted.amount += amount;
        if is_first { EventAction::LogCountLater } else { EventAction::Nothing }
    }

    /// Logs the count if the interval has passed, or in any case if `at_once`. Returns how long it
    /// still takes.
    fn log_count(&self, now: Instant, at_once: bool) -> Option<Duration> {
        let (level, text) = match self.take_count(now, at_once) {
            Ok(line) => line?,
            Err(rest) => return Some(rest),
        };
        log::log!(level, "{text}");
        None
    }

    fn take_count(&self, now: Instant, at_once: bool) -> Result<Option<(Level, String)>, Duration> {
        let mut counted = self.counted.lock();
        let rest =
            counted.last_line.map_or(Duration::ZERO, |last| (last + INTERVAL).saturating_duration_since(now));
        if !at_once && !rest.is_zero() {
            return Err(rest);
        }
        counted.last_line = Some(now);
        let (events, amount) = (std::mem::take(&mut counted.events), std::mem::take(&mut counted.amount));
        Ok((events > 0).then(|| (counted.level, (self.summary)(events, amount))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_without_a_line_of_their_own_are_logged_together_a_second_later() {
        let kind = EventKind::new(|events, amount| format!("{events}, {amount}"));
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let count = |millis, amount| kind.count(at(millis), Level::Info, amount);
        assert_eq!(count(0, 7), EventAction::Log);
        assert_eq!(count(1, 2), EventAction::LogCountLater);
        assert_eq!(count(900, 3), EventAction::Nothing);
        assert_eq!(kind.take_count(at(900), false), Err(Duration::from_millis(100)));
        // The interval has passed, but this event must not be logged before those that were
        // counted.
        assert_eq!(count(1050, 1), EventAction::Nothing);
        assert_eq!(kind.take_count(at(1100), false), Ok(Some((Level::Info, "3, 6".to_owned()))));
        assert_eq!(kind.take_count(at(1100), true), Ok(None));
        assert_eq!(count(1200, 1), EventAction::LogCountLater);
        assert_eq!(kind.take_count(at(1200), true), Ok(Some((Level::Info, "1, 1".to_owned()))));
        assert_eq!(count(2200, 1), EventAction::Log);
    }
}
