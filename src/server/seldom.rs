//! Log lines for what may happen a thousand times a second: one a second at most, and how many there
//! were meanwhile.

use std::time::{Duration, Instant};

use crate::broker::sync::Mutex;

const INTERVAL: Duration = Duration::from_secs(1);

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
    /// Warns, unless it has done so within the last second.
    pub(super) fn warn(&self, text: impl FnOnce() -> String) {
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
            0 => log::warn!("{}", text()),
            more => log::warn!("{} (and {more} times more before)", text()),
        }
    }
}
