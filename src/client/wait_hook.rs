//! What a thread that waits calls now and then: a hook that is told when a signal handler has run in
//! the thread, and about once a second, and can end the wait. Knows no connection: the waits of this
//! module ask it how long they may sleep, and tell it when they have slept.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::os::socket::wait_for;

/// How often a hook is called. Also how late at most it is called for a signal handler that ran just
/// before the thread began to sleep, which nothing else shows.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookReason {
    /// A signal handler has run in this thread.
    Signal,
    /// Nothing has happened for a second.
    Tick,
}

/// A hook of one wait. It must not be called while a mutex is held, because code of the library's
/// user runs in it.
pub(crate) struct WaitHook<'a> {
    /// `None` for a wait that only its own end ends.
    call: Option<&'a mut dyn FnMut(HookReason) -> ControlFlow<()>>,
    /// Whether it is called for signal handlers, too.
    sees_signals: bool,
    next_tick: Instant,
    has_ended: bool,
}

impl<'a> WaitHook<'a> {
    pub(crate) fn none() -> Self {
        Self { call: None, sees_signals: false, next_tick: Instant::now(), has_ended: false }
    }

    pub(crate) fn new(sees_signals: bool, call: &'a mut dyn FnMut(HookReason) -> ControlFlow<()>) -> Self {
        Self { call: Some(call), sees_signals, next_tick: Instant::now() + INTERVAL, has_ended: false }
    }

    pub(super) fn is_none(&self) -> bool {
        self.call.is_none()
    }

    pub(super) fn sees_signals(&self) -> bool {
        self.sees_signals
    }

    /// When a wait with this deadline must wake up.
    pub(super) fn wake_at(&self, deadline: Option<Instant>) -> Option<Instant> {
        if self.is_none() {
            return deadline;
        }
        Some(deadline.map_or(self.next_tick, |deadline| deadline.min(self.next_tick)))
    }

    /// How long a wait with this deadline may sleep now; `None` for as long as it takes.
    pub(super) fn sleep_limit(&self, deadline: Option<Instant>) -> Option<Duration> {
        let wake_at = self.wake_at(deadline)?;
        Some(wake_at.saturating_duration_since(Instant::now()))
    }

    /// To be called after each sleep, with whether a signal handler has ended it. `Break` ends the
    /// wait.
    pub(super) fn after_sleep(&mut self, is_interrupted: bool) -> ControlFlow<()> {
        let Some(call) = &mut self.call else { return ControlFlow::Continue(()) };
        let is_tick = Instant::now() >= self.next_tick;
        let reason = match (is_interrupted && self.sees_signals, is_tick) {
            (true, _) => HookReason::Signal,
            (false, true) => HookReason::Tick,
            (false, false) => return ControlFlow::Continue(()),
        };
        self.next_tick = Instant::now() + INTERVAL;
        let flow = call(reason);
        self.has_ended |= flow.is_break();
        flow
    }

    /// Whether it has ended the wait.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// As [`after_sleep`](Self::after_sleep), for waits that fail with an error: the one that says
    /// that the wait has been ended.
    pub(super) fn check_after_sleep(&mut self, is_interrupted: bool) -> io::Result<()> {
        let flow = self.after_sleep(is_interrupted);
        if flow.is_break() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// Sleeps for this long, unless it ends the wait.
    pub(crate) fn sleep(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let slept = wait_for(&mut [], self.sleep_limit(Some(deadline)));
            let is_interrupted = slept.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
            if self.after_sleep(is_interrupted).is_break() || Instant::now() >= deadline {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_for_signals_if_it_asks_for_them_and_for_ticks_when_they_are_due() {
        let mut told = Vec::new();
        for sees_signals in [false, true] {
            let mut call = |reason| {
                told.push(reason);
                ControlFlow::Continue(())
            };
            let mut hook = WaitHook::new(sees_signals, &mut call);
            for is_interrupted in [false, true] {
                assert!(hook.after_sleep(is_interrupted).is_continue());
            }
            hook.next_tick = Instant::now();
            assert!(hook.after_sleep(false).is_continue());
            // The next one is due a second later.
            assert!(hook.after_sleep(false).is_continue());
        }
        assert_eq!(told, [HookReason::Tick, HookReason::Signal, HookReason::Tick]);
    }

    #[test]
    fn a_wait_wakes_up_for_the_next_tick_and_for_its_end_and_without_a_hook_only_for_its_end() {
        let mut call = |_| ControlFlow::Break(());
        let mut hook = WaitHook::new(false, &mut call);
        let (earlier, later) = (hook.next_tick - INTERVAL / 2, hook.next_tick + INTERVAL);
        let wake_at = [None, Some(later), Some(earlier)].map(|deadline| hook.wake_at(deadline).unwrap());
        assert_eq!(wake_at, [hook.next_tick, hook.next_tick, earlier]);
        assert_eq!(WaitHook::none().wake_at(Some(later)), Some(later));
        assert_eq!(WaitHook::none().sleep_limit(None), None);
        // The tick ends it, long before its time.
        let start = Instant::now();
        hook.sleep(INTERVAL * 1000);
        assert!(start.elapsed() < INTERVAL * 500);
        assert!(WaitHook::none().after_sleep(true).is_continue());
    }
}
