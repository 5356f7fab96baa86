//! How calls wait for a connection while the session has none: each goes on with connecting when
//! there is something to do, and sleeps in between, whatever thread does it.

use std::io;
use std::time::{Duration, Instant};

use super::machine::{Condition, MachineStep};
use super::{ReconnectingSession, Shared};
use crate::broker::{AcquireError, ReleaseError};
use crate::client::dial::{deadline, resolve};
use crate::client::session::{InspectError, RemoteSession};
use crate::client::url::{Endpoint, ServerPlace};
use crate::os::boot_clock::BootTime;
use crate::os::socket::{PollFd, Waker, wait_for};
use crate::os::sync::{Arc, MutexGuard};

/// How often a waiting thread looks that cannot be woken, because no descriptor is left.
const UNWAKEABLE: Duration = Duration::from_millis(50);

/// How old the addresses of an absent server may become before its name is resolved anew.
const RESOLVE_AFTER: Duration = Duration::from_secs(10);

/// One call, for as long as it may wait.
pub(super) struct Patience {
    limit: Option<Duration>,
    /// `None` for no limit.
    pub(super) deadline: Option<Instant>,
    /// How often the session's calls had been cancelled when it began.
    cancels: u64,
}

impl Patience {
    /// The rest of its time.
    pub(super) fn rest(&self) -> Option<Duration> {
        let rest = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        // A limit beyond the clock's range has no deadline.
        self.deadline.map_or(self.limit, |deadline| Some(rest(deadline)))
    }

    fn is_over(&self) -> bool {
        self.rest() == Some(Duration::ZERO)
    }
}

/// Why a call ends without having been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unmade {
    Doubt(String),
    Lost(String),
    Cancelled,
    /// A signal handler has run.
    Interrupted,
}

impl From<Unmade> for AcquireError {
    fn from(unmade: Unmade) -> Self {
        match unmade {
            Unmade::Doubt(reason) => Self::Doubt(reason),
            Unmade::Lost(reason) => Self::Lost(reason),
            Unmade::Cancelled => Self::Cancelled,
            Unmade::Interrupted => Self::Interrupted,
        }
    }
}

impl From<Unmade> for ReleaseError {
    fn from(unmade: Unmade) -> Self {
        match unmade {
            Unmade::Lost(reason) => Self::Lost(reason),
            Unmade::Doubt(reason) => Self::Doubt(reason),
            Unmade::Cancelled | Unmade::Interrupted => Self::Doubt("the call was cancelled".to_owned()),
        }
    }
}

impl From<Unmade> for InspectError {
    fn from(unmade: Unmade) -> Self {
        match unmade {
            Unmade::Lost(reason) => Self::Lost(reason),
            Unmade::Doubt(reason) => Self::Doubt(reason),
            Unmade::Cancelled | Unmade::Interrupted => Self::Cancelled,
        }
    }
}

impl ReconnectingSession {
    /// The patience of a call that begins now.
    pub(super) fn patience(&self, limit: Option<Duration>) -> Patience {
        Patience { limit, deadline: deadline(limit), cancels: self.shared.lock().cancels }
    }

    /// The present connection, for a call that does not wait for one.
    pub(super) fn usable_now(&self) -> Result<Arc<RemoteSession>, Unmade> {
        let mut shared = self.shared.lock();
        self.step_if_away(&mut shared);
        usable(&shared)
    }

    /// Waits for a connection, within the call's time.
    pub(super) fn usable(&self, patience: &Patience) -> Result<Arc<RemoteSession>, Unmade> {
        self.wait_until(patience, |shared| match usable(shared) {
            Err(Unmade::Doubt(_)) => None,
            decided => Some(decided),
        })
    }

    /// Waits, within the call's time, until `decide` returns something.
    pub(super) fn wait_until<T>(
        &self,
        patience: &Patience,
        decide: impl Fn(&Shared) -> Option<Result<T, Unmade>>,
    ) -> Result<T, Unmade> {
        let mut shared = self.shared.lock();
        loop {
            if shared.cancels != patience.cancels {
                return Err(Unmade::Cancelled);
            }
            self.step_if_away(&mut shared);
            if let Some(decided) = decide(&shared) {
                return decided;
            }
            let (Condition::Away { reason, .. } | Condition::Lost { reason }) = shared.machine.condition()
            else {
                // It stands, and this call waits for something that comes only with a verdict.
                return Err(Unmade::Doubt("the session was resumed otherwise".to_owned()));
            };
            if patience.is_over() {
                return Err(Unmade::Doubt(reason.to_owned()));
            }
            self.resolve_again(&mut shared);
            let is_interrupted = self.sleep(&mut shared, patience);
            if is_interrupted && self.interruptible {
                return Err(Unmade::Interrupted);
            }
        }
    }

    /// The call has found the connection lost that it was made on.
    pub(super) fn note_loss(&self, session: &Arc<RemoteSession>) {
        let mut shared = self.shared.lock();
        if Arc::ptr_eq(&shared.current, session) {
            self.step(&mut shared);
            self.arm(&mut shared);
        }
    }

    pub(super) fn step_if_away(&self, shared: &mut Shared) {
        if shared.machine.condition() != Condition::Standing {
            self.step(shared);
            self.arm(shared);
        }
    }

    /// Sleeps until there is something to do. Returns whether a signal handler has ended it.
    fn sleep(&self, shared: &mut MutexGuard<'_, Shared>, patience: &Patience) -> bool {
        let now = BootTime::now();
        let mut limit = match shared.machine.step(now) {
            MachineStep::GoOn(at) | MachineStep::Pause(at) => now.until(at),
            MachineStep::Stand | MachineStep::Begin | MachineStep::GiveUp | MachineStep::Lost => {
                return false;
            }
        };
        limit = patience.rest().map_or(limit, |rest| rest.min(limit));
        let waker = Waker::new().map(Arc::new);
        match &waker {
            Ok(waker) => shared.waiters.push(waker.clone()),
            Err(_) => limit = limit.min(UNWAKEABLE),
        }
        let attempt = shared.attempt.as_ref().map(|attempt| (attempt.stream().clone(), attempt.waits_for()));
        let slept = MutexGuard::unlocked(shared, || {
            let mut fds = Vec::new();
            fds.extend(attempt.as_ref().map(|(stream, ready_for)| PollFd::new(&**stream, *ready_for)));
            fds.extend(waker.as_ref().ok().map(|waker| waker.poll_fd()));
            wait_for(&mut fds, Some(limit))
        });
        if let Ok(waker) = &waker {
            shared.waiters.retain(|other| !Arc::ptr_eq(other, waker));
        }
        slept.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
    }

    /// Resolves the name of a server that is away for long, and where nothing is held: resolving
    /// may take longer than a session in doubt has.
    fn resolve_again(&self, shared: &mut MutexGuard<'_, Shared>) {
        let is_anew = matches!(shared.machine.condition(), Condition::Away { limit: None, .. });
        let is_named = |place: &ServerPlace| matches!(place.endpoint, Endpoint::Tcp { .. });
        if !is_anew || !self.url.places().iter().any(is_named) || shared.resolved_at.elapsed() < RESOLVE_AFTER
        {
            return;
        }
        shared.resolved_at = Instant::now();
        let resolved: Vec<_> =
            MutexGuard::unlocked(shared, || self.url.places().iter().map(resolve).collect());
        for (place, addresses) in resolved.into_iter().enumerate() {
            shared.rounds.set_addresses(place, addresses.unwrap_or_default());
        }
    }
}

fn usable(shared: &Shared) -> Result<Arc<RemoteSession>, Unmade> {
    match shared.machine.condition() {
        Condition::Standing => Ok(shared.current.clone()),
        Condition::Away { reason, .. } => Err(Unmade::Doubt(reason.to_owned())),
        Condition::Lost { reason } => Err(Unmade::Lost(reason.to_owned())),
    }
}
