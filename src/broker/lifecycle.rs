//! Whether the broker grants: not yet, now, no more, or never again because a panic has left its
//! state in doubt; or not at all yet, because another server is the one that grants; and which calls
//! each of these states refuses. Knows nothing of locks.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::broker::clock::{self, Stamp};
use crate::broker::outcome::{AcquireError, ReleaseError};
use crate::broker::session_info::SessionInfo;
use crate::os::sync::{AtomicU8, AtomicU64};

const OPEN: u8 = 0;
/// Nothing is granted any more.
const SHUT: u8 = 1;
/// A panic has left a lane or the table in an unknown state. Every call is refused.
const FAILED: u8 = 2;
/// Nothing is granted yet: holders of an earlier run may not know yet that it has ended. A broker
/// can start in this state and never returns to it.
const GRACE: u8 = 3;
/// The broker of a standby: another server has the locks. A broker can start in this state, leaves
/// it once, and never returns to it.
const STANDBY: u8 = 4;

/// What a caller is about to do, and for which session. It decides which states refuse the call.
#[derive(Clone, Copy)]
pub(super) enum Intent<'a> {
    /// The broker's own work, such as housekeeping or a listing, for no session.
    Broker,
    /// To release, cancel, end what is due, or inspect: anything that acquires nothing. The session
    /// must not have ended.
    Releasing(&'a SessionInfo),
    /// To acquire and to wait if need be: also possible in the grace.
    Queueing(&'a SessionInfo),
    /// To acquire at once.
    Acquiring(&'a SessionInfo),
    /// To get back what the session held in an earlier run: possible in the grace only.
    Reclaiming(&'a SessionInfo),
}

impl<'a> Intent<'a> {
    pub(super) fn session(self) -> Option<&'a SessionInfo> {
        match self {
            Intent::Broker => None,
            Intent::Releasing(info)
            | Intent::Queueing(info)
            | Intent::Acquiring(info)
            | Intent::Reclaiming(info) => Some(info),
        }
    }
}

/// Why a call is refused, whatever lock it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallRefused {
    SessionEnded,
    /// The broker grants nothing for about this long.
    Grace(Duration),
    /// There is no grace, or it is over.
    NoGrace,
    Shut,
    Standby,
    Failed,
}

impl CallRefused {
    pub(super) fn text(self) -> String {
        match self {
            Self::SessionEnded => "it was closed".to_owned(),
            Self::Grace(rest) => format!(
                "the server has been started anew; it grants nothing for another {} s, until all who \
                 held locks before have found out, or are back",
                rest.as_millis().div_ceil(1000)
            ),
            Self::NoGrace => "the server grants locks to others already".to_owned(),
            Self::Shut => "the server is stopping".to_owned(),
            Self::Standby => "the server is a standby".to_owned(),
            Self::Failed => "the broker has failed".to_owned(),
        }
    }
}

impl From<CallRefused> for AcquireError {
    fn from(refused: CallRefused) -> Self {
        match refused {
            CallRefused::Grace(_) => Self::NotYet(refused.text()),
            CallRefused::Shut | CallRefused::Standby | CallRefused::NoGrace => Self::Refused(refused.text()),
            CallRefused::SessionEnded | CallRefused::Failed => Self::Lost(refused.text()),
        }
    }
}

impl From<CallRefused> for ReleaseError {
    fn from(refused: CallRefused) -> Self {
        Self::Lost(refused.text())
    }
}

/// The state of a broker.
pub(super) struct Lifecycle {
    state: AtomicU8,
    /// When the grace is expected to end, in nanoseconds; only for messages.
    grace_ends: AtomicU64,
}

impl Lifecycle {
    /// With `grace_ends`, grants nothing until it is [opened](Self::open), which is expected to
    /// happen then; otherwise open from the start.
    pub(super) fn new(grace_ends: Option<Stamp>) -> Self {
        let state = AtomicU8::new(if grace_ends.is_some() { GRACE } else { OPEN });
        Self { state, grace_ends: AtomicU64::new(grace_ends.unwrap_or_default().nanos()) }
    }

    /// Of a standby: refuses to grant until it [begins](Self::begin).
    pub(super) fn standby() -> Self {
        Self { state: AtomicU8::new(STANDBY), grace_ends: AtomicU64::new(0) }
    }

    /// What was a standby's goes on as [`new`](Self::new) makes it. Returns false if it was none.
    pub(super) fn begin(&self, grace_ends: Option<Stamp>) -> bool {
        self.grace_ends.store(grace_ends.unwrap_or_default().nanos(), Relaxed);
        let next = if grace_ends.is_some() { GRACE } else { OPEN };
        self.state.compare_exchange(STANDBY, next, Release, Relaxed).is_ok()
    }

    /// Whether a call with this intent may proceed. The caller must have locked the lane or the
    /// table that it is about to change: otherwise the session may end, or the broker be shut,
    /// between the check and the change.
    pub(super) fn check(&self, intent: Intent<'_>) -> Result<(), CallRefused> {
        match (self.state.load(Acquire), intent) {
            (FAILED, _) => Err(CallRefused::Failed),
            _ if intent.session().is_some_and(|info| info.ended.load(Acquire)) => {
                Err(CallRefused::SessionEnded)
            }
            (SHUT, Intent::Queueing(_) | Intent::Acquiring(_) | Intent::Reclaiming(_)) => {
                Err(CallRefused::Shut)
            }
            (STANDBY, Intent::Queueing(_) | Intent::Acquiring(_) | Intent::Reclaiming(_)) => {
                Err(CallRefused::Standby)
            }
            (OPEN, Intent::Reclaiming(_)) => Err(CallRefused::NoGrace),
            (GRACE, Intent::Acquiring(_)) => Err(CallRefused::Grace(self.grace())),
            _ => Ok(()),
        }
    }

    /// How long it is until the broker grants anything. Zero in every state but the grace.
    pub(super) fn grace(&self) -> Duration {
        match self.state.load(Acquire) {
            GRACE => self.expected_end().since(clock::now()),
            _ => Duration::ZERO,
        }
    }

    /// When the grace is expected to end; `None` in every state but the grace.
    pub(super) fn grace_ends(&self) -> Option<Stamp> {
        (self.state.load(Acquire) == GRACE).then(|| self.expected_end())
    }

    fn expected_end(&self) -> Stamp {
        Stamp::from_nanos(self.grace_ends.load(Relaxed))
    }

    /// Ends the grace. Returns false if the broker was not in it.
    pub(super) fn open(&self) -> bool {
        self.state.compare_exchange(GRACE, OPEN, Release, Relaxed).is_ok()
    }

    /// From now on nothing is granted. Returns false if that was so already.
    pub(super) fn shut(&self) -> bool {
        let shut_from = |state| self.state.compare_exchange(state, SHUT, Release, Relaxed).is_ok();
        // In this order, in which a broker goes from state to state meanwhile.
        shut_from(STANDBY) || shut_from(GRACE) || shut_from(OPEN)
    }

    /// Whether waiters may be granted what they wait for.
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Acquire) == OPEN
    }

    /// Whether nothing will be granted any more.
    pub(super) fn is_shut(&self) -> bool {
        matches!(self.state.load(Acquire), SHUT | FAILED)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state.load(Acquire) == FAILED
    }

    /// To be called before a change that a panic must not leave half done. Unless the sentinel is
    /// disarmed before it is dropped, the broker has failed.
    pub(super) fn arm(&self) -> FailureSentinel<'_> {
        FailureSentinel { lifecycle: self, is_armed: true }
    }
}

/// See [`Lifecycle::arm`].
pub(super) struct FailureSentinel<'a> {
    lifecycle: &'a Lifecycle,
    is_armed: bool,
}

impl FailureSentinel<'_> {
    pub(super) fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl Drop for FailureSentinel<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.lifecycle.state.store(FAILED, Release);
        }
    }
}
