//! How threads wait for replies. One of them reads for all; the others sleep until it, or a change,
//! wakes them.

use std::io;
use std::time::{Duration, Instant};

use super::state::{AwaitedReply, ConnectionState, Lost, ReplySlot, ReplyWait};
use super::{OnSignal, ServerConnection};
use crate::client::wait_hook::WaitHook;
use crate::os::socket::{Waker, wait_for};
use crate::os::sync::{Arc, MutexGuard};

/// How often a waiting thread checks the connection itself. Nothing wakes it when a descriptor is
/// closed under it, and the kernel may not report that the server is gone.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The same for a thread that cannot be woken, because no descriptor is left for its waker.
const CHECK_INTERVAL_UNWAKEABLE: Duration = Duration::from_millis(50);

impl ServerConnection {
    /// Waits until the first of these requests is answered, or until the deadline. If several are
    /// answered, it takes the reply to the one that comes first in `ids`.
    pub(in crate::client) fn wait(
        &self,
        ids: &[u64],
        deadline: Option<Instant>,
        on_signal: OnSignal,
    ) -> Result<ReplyWait, Lost> {
        let mut state = self.state.lock();
        let mut is_interrupted = false;
        let waited = loop {
            if let Some(waited) = state.take(ids) {
                break Ok(waited);
            }
            if let Some(lost) = &state.lost {
                break Err(lost.clone());
            }
            if is_interrupted && on_signal == OnSignal::Interrupt {
                break Ok(ReplyWait::Interrupted);
            }
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if rest == Some(Duration::ZERO) {
                break Ok(ReplyWait::TimedOut);
            }
            (state, is_interrupted) = match (state.has_reader, on_signal) {
                (false, _) => self.read(state, ids, rest),
                (true, OnSignal::Continue) => (self.sleep(state, rest), false),
                (true, OnSignal::Interrupt) => self.sleep_interruptible(state, rest),
            };
        };
        if !state.has_reader {
            // If other threads still wait, one of them must read from now on.
            self.wake_one(&state);
        }
        waited
    }

    /// As [`wait`](Self::wait), but calls the hook now and then. If the hook ends the wait, that
    /// counts as timed out.
    pub(in crate::client) fn wait_with_hook(
        &self,
        ids: &[u64],
        deadline: Option<Instant>,
        on_signal: OnSignal,
        hook: &mut WaitHook<'_>,
    ) -> Result<ReplyWait, Lost> {
        loop {
            let waited = self.wait(ids, hook.wake_at(deadline), on_signal)?;
            let is_interrupted = match waited {
                ReplyWait::Interrupted if !hook.is_none() => true,
                ReplyWait::TimedOut if deadline.is_none_or(|deadline| Instant::now() < deadline) => false,
                waited => return Ok(waited),
            };
            if hook.after_sleep(is_interrupted).is_break() {
                return Ok(ReplyWait::TimedOut);
            }
        }
    }

    /// Sleeps until something changes, at most for `limit`.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, ConnectionState>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, ConnectionState> {
        state.sleepers += 1;
        let mut state = match limit {
            Some(limit) => self.changed.wait_timeout(state, limit).0,
            None => self.changed.wait(state),
        };
        state.sleepers -= 1;
        state
    }

    /// As [`sleep`](Self::sleep), but a signal handler also ends it; returns whether one did. A
    /// condition variable cannot be interrupted by a signal, so this sleeps in poll(2).
    fn sleep_interruptible<'a>(
        &self,
        mut state: MutexGuard<'a, ConnectionState>,
        limit: Option<Duration>,
    ) -> (MutexGuard<'a, ConnectionState>, bool) {
        let spare = state.spare_wakers.pop().map_or_else(|| Waker::new().map(Arc::new), Ok);
        let Ok(waker) = spare else {
            return (self.sleep(state, Some(at_most(limit, CHECK_INTERVAL_UNWAKEABLE))), false);
        };
        state.pollers.push(waker.clone());
        let woken = MutexGuard::unlocked(&mut state, || {
            wait_for(&mut [waker.poll_fd()], Some(at_most(limit, CHECK_INTERVAL)))
        });
        state.pollers.retain(|other| !Arc::ptr_eq(other, &waker));
        waker.reset();
        state.spare_wakers.push(waker);
        (state, woken.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted))
    }

    fn wake_one(&self, state: &ConnectionState) {
        match state.pollers.first() {
            Some(waker) => waker.wake(),
            None if state.sleepers > 0 => self.changed.notify_one(),
            None => {}
        }
    }

    pub(super) fn wake_all(&self, state: &ConnectionState) {
        state.pollers.iter().for_each(|waker| waker.wake());
        if state.sleepers > 0 {
            self.changed.notify_all();
        }
    }

    pub(super) fn wake_reader(&self, state: &ConnectionState) {
        if state.has_reader {
            self.waker.wake();
        }
    }

    /// Drops the reply to this request, also if it comes later. A thread that waits for it is told.
    pub(in crate::client) fn forget(&self, id: u64) {
        let mut state = self.state.lock();
        state.slots.remove(&id);
        self.wake_reader(&state);
        self.wake_all(&state);
    }

    /// Whether the reply to this request is wanted and has not come yet.
    pub(in crate::client) fn is_unanswered(&self, id: u64) -> bool {
        let state = self.state.lock();
        matches!(state.slots.get(&id), Some(AwaitedReply { slot: ReplySlot::Awaited, .. }))
    }

    /// Ends the wait for every reply that has not come yet with [`ReplyWait::Cancelled`].
    pub(in crate::client) fn cancel(&self) {
        let mut state = self.state.lock();
        for pending in state.slots.values_mut() {
            if matches!(pending.slot, ReplySlot::Awaited) {
                pending.slot = ReplySlot::Cancelled;
            }
        }
        self.wake_reader(&state);
        self.wake_all(&state);
    }
}

pub(super) fn at_most(limit: Option<Duration>, max: Duration) -> Duration {
    limit.map_or(max, |limit| limit.min(max))
}
