//! The session's own view of its locks: what it holds and waits for, as far as its calls have
//! learned. Decides which calls are allowed, and what must be taken back when a request is given
//! up. Sends nothing, knows no connection.
//!
//! A request is *decided* exactly once, by the thread that removes it from [`LocalView`]: either a
//! thread that has its reply, or a thread that gives it up. So a grant that crosses a cancel is
//! either delivered or given back, never both.

use std::collections::HashMap;
use std::time::Instant;

use super::belief::{Belief, RememberedPlace};
use crate::broker::{AcquireError, Held, LockName, Mode, Released};

/// The session's relation to one name. A name with neither of the two is not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NameState {
    /// The server granted it, and it was not released since.
    held: Option<Held>,
    request: Option<NameRequest>,
}

/// A request for a name: to acquire it, or if it is held, to change its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameRequest {
    Undecided(u64),
    /// It had a place in the queue that a caller could come back for. It was cancelled, and no
    /// caller has been told so yet.
    Cancelled(u64),
}

/// A request that has not been decided.
#[derive(Debug)]
pub(super) struct UndecidedRequest {
    pub(super) wants: Vec<(LockName, Mode)>,
    /// What is held on the name, if this is to convert it.
    pub(super) before: Option<Held>,
    /// It was made to take a place in the queue. A later call asks for its outcome.
    is_enqueued: bool,
    /// The call that waited for it was interrupted, and a later call may ask for its outcome.
    is_kept: bool,
    /// A caller has been told that it has a place in the queue.
    is_told: bool,
    /// When its time limit is over; `None` for no limit.
    until: Option<Instant>,
    /// Earlier requests for the same names that were cancelled, and of which no caller has been
    /// told yet. If this request fails, a caller must still be told.
    untold: Vec<(LockName, u64)>,
}

impl UndecidedRequest {
    fn new(
        wants: Vec<(LockName, Mode)>,
        before: Option<Held>,
        is_enqueued: bool,
        untold: Vec<(LockName, u64)>,
    ) -> Self {
        Self { wants, before, is_enqueued, is_kept: false, is_told: false, until: None, untold }
    }

    /// The state of a name if the request comes to nothing: what it was before.
    fn state_before(&self, name: &LockName) -> NameState {
        let untold = self.untold.iter().find(|(other, _)| other == name);
        NameState { held: self.before, request: untold.map(|&(_, id)| NameRequest::Cancelled(id)) }
    }

    /// Whether a later call may ask for the outcome.
    fn can_be_collected(&self) -> bool {
        self.is_enqueued || self.is_kept
    }

    /// The place in a queue that a caller may come back for.
    fn place(&self) -> Option<RememberedPlace> {
        let is_known = self.is_kept || self.is_enqueued && self.is_told;
        let (wants, converts) = (self.wants.clone(), self.before.is_some());
        is_known.then_some(RememberedPlace { wants, converts, is_kept: self.is_kept, until: self.until })
    }

    /// Whether it is to convert a lock to a mode that allows more holders. That never waits, and it
    /// cannot be taken back, since others may have been let in.
    pub(super) fn widens(&self) -> bool {
        self.before.is_some_and(|before| self.wants.iter().all(|(_, mode)| *mode > before.mode))
    }
}

/// What giving up a name comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    pub(super) released: Released,
    /// The names that are given up with it: all names of the request, if it waited.
    pub(super) names: Vec<LockName>,
    /// The request that was given up.
    pub(super) request: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct LocalView {
    names: HashMap<LockName, NameState>,
    requests: HashMap<u64, UndecidedRequest>,
    /// The number of names that are held.
    held: usize,
}

impl LocalView {
    /// Enters the request `id` to acquire these names, if the session neither holds any of them nor
    /// waits for it.
    pub(super) fn ask(
        &mut self,
        id: u64,
        wants: Vec<(LockName, Mode)>,
        is_enqueued: bool,
    ) -> Result<(), AcquireError> {
        let mut untold = Vec::new();
        for (name, _) in &wants {
            match self.names.get(name) {
                None => {}
                Some(NameState { held: Some(held), .. }) => return Err(AcquireError::AlreadyHeld(*held)),
                Some(NameState { request: Some(NameRequest::Cancelled(id)), .. }) => {
                    untold.push((name.clone(), *id));
                }
                Some(NameState { request: Some(NameRequest::Undecided(id)), .. }) => {
                    return Err(self.already_waiting(&wants, *id));
                }
                // Not listed: neither held nor requested.
                Some(NameState { request: None, .. }) => {}
            }
        }
        self.enter(id, UndecidedRequest::new(wants, None, is_enqueued, untold));
        Ok(())
    }

    /// Enters the request `id` to change the mode of a held lock. Returns whether it
    /// [widens](UndecidedRequest::widens) the mode.
    pub(super) fn ask_to_convert(
        &mut self,
        id: u64,
        name: LockName,
        mode: Mode,
        is_enqueued: bool,
    ) -> Result<bool, AcquireError> {
        let NameState { held, request } = self.names.get(&name).copied().unwrap_or_default();
        let Some(held) = held else { return Err(AcquireError::NotHeld) };
        let wants = vec![(name.clone(), mode)];
        let untold = match request {
            None => Vec::new(),
            Some(NameRequest::Cancelled(id)) => vec![(name, id)],
            Some(NameRequest::Undecided(id)) => return Err(self.already_waiting(&wants, id)),
        };
        self.enter(id, UndecidedRequest::new(wants, Some(held), is_enqueued, untold));
        Ok(mode > held.mode)
    }

    /// The error of a request for `wants`, of which the undecided request `id` has a name.
    fn already_waiting(&self, wants: &[(LockName, Mode)], id: u64) -> AcquireError {
        let waiting = self.requests.get(&id);
        debug_assert!(waiting.is_some(), "an undecided request is listed");
        AcquireError::already_waiting(wants, waiting.map_or(&[], |request| &request.wants))
    }

    fn enter(&mut self, id: u64, request: UndecidedRequest) {
        for (name, _) in &request.wants {
            let state = NameState { held: request.before, request: Some(NameRequest::Undecided(id)) };
            self.set(name, state);
        }
        let replaced = self.requests.insert(id, request);
        debug_assert!(replaced.is_none(), "every request has an id of its own");
    }

    /// The call that waits for the outcome of the request is interrupted, and the request stays.
    /// False if it has been given up before.
    pub(super) fn keep(&mut self, id: u64) -> bool {
        let request = self.requests.get_mut(&id);
        request.map(|request| request.is_kept = true).is_some()
    }

    /// The time limit of the request.
    pub(super) fn limit(&mut self, id: u64, until: Option<Instant>) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.until = until;
        }
    }

    /// A caller is told that the request has a place in the queue. False if it has been given up
    /// before.
    pub(super) fn tell_queued(&mut self, id: u64) -> bool {
        let request = self.requests.get_mut(&id);
        request.map(|request| request.is_told = true).is_some()
    }

    /// For a call that now waits for its outcome: the kept request to acquire exactly these names
    /// and modes.
    pub(super) fn resume_acquire(&mut self, wants: &[(LockName, Mode)]) -> Option<u64> {
        match self.names.get(&wants.first()?.0)? {
            NameState { held: None, request: Some(NameRequest::Undecided(id)) } => self.resume(*id, wants),
            _ => None,
        }
    }

    /// The same for a conversion.
    pub(super) fn resume_conversion(&mut self, name: &LockName, mode: Mode) -> Option<u64> {
        match self.names.get(name)? {
            NameState { held: Some(_), request: Some(NameRequest::Undecided(id)) } => {
                self.resume(*id, &[(name.clone(), mode)])
            }
            _ => None,
        }
    }

    fn resume(&mut self, id: u64, wants: &[(LockName, Mode)]) -> Option<u64> {
        let request = self.requests.get_mut(&id)?;
        let is_it = request.is_kept && request.wants == wants;
        request.is_kept &= !is_it;
        is_it.then_some(id)
    }

    /// Records the reply to a request: granted with this token, or not granted. `None` if the
    /// request has been given up before. Then a grant is being given back to the server, and must
    /// not be delivered.
    pub(super) fn decide(&mut self, id: u64, granted: Option<u64>) -> Option<UndecidedRequest> {
        let request = self.requests.remove(&id)?;
        for (name, mode) in &request.wants {
            let state = match granted {
                Some(token) => NameState { held: Some(Held { mode: *mode, token }), request: None },
                None => request.state_before(name),
            };
            self.set(name, state);
        }
        Some(request)
    }

    /// The reply to a request will never come, since the connection is lost: it is not granted. But
    /// a conversion may have been carried out, so the lock counts as held in the mode that allows
    /// more holders.
    pub(super) fn abandon(&mut self, id: u64) {
        let Some(request) = self.decide(id, None) else { return };
        for (name, mode) in &request.wants {
            if let Some(held) = self.names.get_mut(name).and_then(|state| state.held.as_mut()) {
                held.mode = held.mode.max(*mode);
            }
        }
    }

    /// What the session believes to have after its connection was lost.
    pub(super) fn belief(&mut self) -> Belief {
        let mut belief = Belief::default();
        let requests: Vec<u64> = self.requests.keys().copied().collect();
        for id in requests {
            let place = self.requests.get(&id).and_then(UndecidedRequest::place);
            belief.places.extend(place);
            self.abandon(id);
        }
        for (name, state) in &self.names {
            if let Some(held) = state.held {
                belief.held.insert(name.clone(), held);
            }
            if let Some(NameRequest::Cancelled(_)) = state.request {
                belief.cancelled.insert(name.clone());
            }
        }
        belief
    }

    /// The view of a session that has this, on a new connection; its places are asked for anew.
    pub(super) fn of(belief: &Belief) -> Self {
        let mut view = Self::default();
        for (name, held) in &belief.held {
            view.set(name, NameState { held: Some(*held), request: None });
        }
        for name in &belief.cancelled {
            let held = view.held(name);
            // Never the id of a request about locks: it was that of the handshake.
            view.set(name, NameState { held, request: Some(NameRequest::Cancelled(0)) });
        }
        view
    }

    /// Gives a request up; the caller must take it back from the server. What was held stays held.
    pub(super) fn withdraw(&mut self, id: u64) -> Option<UndecidedRequest> {
        let request = self.requests.remove(&id)?;
        for (name, mode) in &request.wants {
            let mut state = request.state_before(name);
            if let (true, Some(held)) = (request.widens(), &mut state.held) {
                // Others may have been let in.
                held.mode = held.mode.max(*mode);
            }
            if request.can_be_collected() {
                state.request = Some(NameRequest::Cancelled(id));
            }
            self.set(name, state);
        }
        Some(request)
    }

    fn set(&mut self, name: &LockName, state: NameState) {
        let before = if state == NameState::default() {
            self.names.remove(name)
        } else {
            self.names.insert(name.clone(), state)
        };
        self.held += usize::from(state.held.is_some());
        self.held -= usize::from(before.is_some_and(|before| before.held.is_some()));
    }

    /// The requests that can be withdrawn. A conversion that widens the mode cannot.
    pub(super) fn waiting(&self) -> Vec<u64> {
        self.requests.iter().filter(|(_, request)| !request.widens()).map(|(&id, _)| id).collect()
    }

    /// Gives up the lock `name`, or the place in its queue; the caller must tell the server. `None`
    /// if there is neither.
    pub(super) fn give_up(&mut self, name: &LockName) -> Option<GivenUp> {
        let state = self.names.get(name).copied()?;
        self.set(name, NameState::default());
        let undecided = match state.request {
            Some(NameRequest::Undecided(id)) => Some(id),
            Some(NameRequest::Cancelled(_)) | None => None,
        };
        let request = undecided.and_then(|id| self.requests.remove(&id));
        debug_assert_eq!(undecided.is_some(), request.is_some(), "an undecided request is listed");
        if state.held.is_some() {
            let names = vec![name.clone()];
            return Some(GivenUp { released: Released::Hold, names, request: undecided });
        }
        let request = request?;
        // The whole request is given up: with its first name it leaves the queues of all.
        let names: Vec<LockName> = request.wants.iter().map(|(name, _)| name.clone()).collect();
        for other in names.iter().filter(|other| *other != name) {
            self.set(other, request.state_before(other));
        }
        Some(GivenUp { released: Released::Place, names, request: undecided })
    }

    /// The request for `name` whose outcome a call may ask for.
    ///
    /// # Errors
    /// `Cancelled`, once, if it was cancelled; `NotHeld` if there is none.
    pub(super) fn collect(&mut self, name: &LockName) -> Result<u64, AcquireError> {
        match self.names.get(name).and_then(|state| state.request) {
            Some(NameRequest::Undecided(id)) => {
                let request = self.requests.get(&id).filter(|request| request.can_be_collected());
                request.map(|_| id).ok_or(AcquireError::NotHeld)
            }
            Some(NameRequest::Cancelled(id)) => {
                self.ack_cancelled(name, id);
                Err(AcquireError::Cancelled)
            }
            None => Err(AcquireError::NotHeld),
        }
    }

    /// A caller has been told that the request `id` for `name` was cancelled.
    pub(super) fn ack_cancelled(&mut self, name: &LockName, id: u64) {
        let state = self.names.get(name).copied().unwrap_or_default();
        if state.request == Some(NameRequest::Cancelled(id)) {
            self.set(name, NameState { request: None, ..state });
        }
    }

    /// Whether the session holds any name.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }

    /// Whether the session holds any name or waits for one.
    pub(super) fn holds_or_waits(&self) -> bool {
        let counts = |state: &NameState| {
            state.held.is_some() || matches!(state.request, Some(NameRequest::Undecided(_)))
        };
        self.names.values().any(counts)
    }

    /// Whether the session waits for `name`.
    pub(super) fn is_waiting(&self, name: &LockName) -> bool {
        let request = self.names.get(name).and_then(|state| state.request);
        matches!(request, Some(NameRequest::Undecided(_)))
    }

    /// What the session holds on `name`.
    pub(super) fn held(&self, name: &LockName) -> Option<Held> {
        self.names.get(name)?.held
    }
}

#[cfg(test)]
mod tests;
