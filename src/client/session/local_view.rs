//! The session's own view of its locks: what it holds and waits for, as far as its calls have
//! learned. Decides which calls are allowed, and what must be taken back when a request is given
//! up. Sends nothing, knows no connection.
//!
//! A request is *decided* exactly once, by the thread that removes it from [`LocalView`]: either a
//! thread that has its reply, or a thread that gives it up. So a grant that crosses a cancel is
//! either delivered or given back, never both.

use std::collections::HashMap;

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
    /// Earlier requests for the same names that were cancelled, and of which no caller has been
    /// told yet. If this request fails, a caller must still be told.
    untold: Vec<(LockName, u64)>,
}

impl UndecidedRequest {
    /// The state of a name if the request comes to nothing: what it was before.
    fn state_before(&self, name: &LockName) -> NameState {
        let untold = self.untold.iter().find(|(other, _)| other == name);
        NameState { held: self.before, request: untold.map(|&(_, id)| NameRequest::Cancelled(id)) }
    }

    /// Whether a later call may ask for the outcome.
    fn can_be_collected(&self) -> bool {
        self.is_enqueued || self.is_kept
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
        self.enter(id, UndecidedRequest { wants, before: None, is_enqueued, is_kept: false, untold });
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
        self.enter(id, UndecidedRequest { wants, before: Some(held), is_enqueued, is_kept: false, untold });
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
            self.names.insert(name.clone(), state);
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

    /// Gives a request up; the caller must take it back from the server. What was held stays held.
    pub(super) fn withdraw(&mut self, id: u64) -> Option<UndecidedRequest> {
        let request = self.requests.remove(&id)?;
        for (name, _) in &request.wants {
            let mut state = request.state_before(name);
            if request.can_be_collected() {
                state.request = Some(NameRequest::Cancelled(id));
            }
            self.set(name, state);
        }
        Some(request)
    }

    fn set(&mut self, name: &LockName, state: NameState) {
        if state == NameState::default() {
            self.names.remove(name);
        } else {
            self.names.insert(name.clone(), state);
        }
    }

    /// The requests that can be withdrawn. A conversion that widens the mode cannot.
    pub(super) fn waiting(&self) -> Vec<u64> {
        self.requests.iter().filter(|(_, request)| !request.widens()).map(|(&id, _)| id).collect()
    }

    /// Gives up the lock `name`, or the place in its queue; the caller must tell the server. `None`
    /// if there is neither.
    pub(super) fn give_up(&mut self, name: &LockName) -> Option<GivenUp> {
        let state = self.names.remove(name)?;
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
mod tests {
    use super::*;

    fn wants(names: &[&str]) -> Vec<(LockName, Mode)> {
        names.iter().map(|&name| (name.into(), Mode::Shared)).collect()
    }

    fn held(token: u64) -> Held {
        Held { mode: Mode::Shared, token }
    }

    /// A view in which `a` is held with token 1.
    fn holding_a() -> LocalView {
        let mut view = LocalView::default();
        view.ask(1, wants(&["a"]), false).unwrap();
        assert!(view.decide(1, Some(1)).is_some());
        view
    }

    #[test]
    fn a_name_can_be_requested_once_at_a_time() {
        let mut view = holding_a();
        assert_eq!(view.ask(2, wants(&["b", "a"]), false), Err(AcquireError::AlreadyHeld(held(1))));
        view.ask(3, wants(&["b"]), false).unwrap();
        assert_eq!(view.ask(4, wants(&["b"]), true), Err(AcquireError::AlreadyWaiting));
        for other in [vec![("b".into(), Mode::Exclusive)], wants(&["b", "c"]), wants(&["c", "b"])] {
            let asked = view.ask(4, other, true);
            assert!(matches!(asked, Err(AcquireError::Invalid(_))), "{asked:?}");
        }
        assert!(view.decide(3, None).is_some());
        view.ask(5, wants(&["b"]), false).unwrap();
    }

    #[test]
    fn a_request_is_decided_once() {
        let mut view = LocalView::default();
        view.ask(1, wants(&["a", "b"]), false).unwrap();
        assert_eq!(view.withdraw(1).unwrap().wants.len(), 2);
        assert!(view.decide(1, Some(7)).is_none(), "the grant is being given back");
        assert!(view.withdraw(1).is_none());
        assert_eq!(view.held(&"a".into()), None);

        view.ask(2, wants(&["a"]), false).unwrap();
        assert!(view.decide(2, Some(8)).is_some());
        assert!(view.withdraw(2).is_none(), "the grant stays");
        assert_eq!(view.held(&"a".into()), Some(held(8)));
    }

    #[test]
    fn a_place_is_given_up_for_all_its_names() {
        let mut view = LocalView::default();
        view.ask(1, wants(&["a", "b"]), false).unwrap();
        let given = view.give_up(&"b".into()).unwrap();
        assert_eq!((given.released, given.request), (Released::Place, Some(1)));
        assert_eq!(given.names, [LockName::from("a"), "b".into()]);
        assert_eq!(view.give_up(&"a".into()), None);
        assert!(view.decide(1, Some(1)).is_none());
    }

    #[test]
    fn a_conversion_that_fails_leaves_what_was_held() {
        let a = LockName::from("a");
        for end in
            [|c: &mut LocalView| c.decide(2, None).is_some(), |c: &mut LocalView| c.withdraw(2).is_some()]
        {
            let mut view = holding_a();
            view.ask_to_convert(2, a.clone(), Mode::Exclusive, false).unwrap();
            let again = view.ask_to_convert(3, a.clone(), Mode::Exclusive, false);
            assert_eq!(again, Err(AcquireError::AlreadyWaiting));
            let other = view.ask_to_convert(3, a.clone(), Mode::Shared, false);
            assert!(matches!(other, Err(AcquireError::Invalid(_))), "{other:?}");
            assert_eq!(view.waiting(), [2]);
            assert!(end(&mut view));
            assert_eq!(view.held(&a), Some(held(1)));
        }
        let mut view = holding_a();
        view.ask_to_convert(2, a.clone(), Mode::Exclusive, false).unwrap();
        assert!(view.decide(2, Some(5)).is_some());
        assert_eq!(view.held(&a), Some(Held { mode: Mode::Exclusive, token: 5 }));
        view.ask_to_convert(3, a.clone(), Mode::Shared, false).unwrap();
        assert!(view.waiting().is_empty(), "a downgrade cannot be taken back");
        assert_eq!(view.give_up(&a).unwrap().released, Released::Hold);
        assert!(view.decide(3, Some(5)).is_none());
        assert_eq!(view.ask_to_convert(4, a, Mode::Shared, false), Err(AcquireError::NotHeld));
    }

    #[test]
    fn a_kept_request_is_resumed_by_a_call_with_the_same_names_and_modes() {
        let mut view = LocalView::default();
        view.ask(1, wants(&["a", "b"]), false).unwrap();
        assert_eq!(view.resume_acquire(&wants(&["a", "b"])), None, "a call still waits for it");
        assert!(view.keep(1) && !view.keep(2));
        assert_eq!(view.resume_acquire(&wants(&["a"])), None);
        assert_eq!(view.resume_acquire(&[("a".into(), Mode::Exclusive), ("b".into(), Mode::Shared)]), None);
        assert_eq!(view.collect(&"b".into()), Ok(1));
        assert_eq!(view.resume_conversion(&"a".into(), Mode::Shared), None, "it is not held");
        assert_eq!(view.ask(3, wants(&["a"]), false), Err(AcquireError::AlreadyWaiting));
        assert_eq!(view.resume_acquire(&wants(&["a", "b"])), Some(1));
        assert_eq!(view.resume_acquire(&wants(&["a", "b"])), None, "only one call resumes it");
        assert_eq!(view.collect(&"b".into()), Err(AcquireError::NotHeld));

        view.keep(1);
        assert!(view.withdraw(1).is_some());
        assert_eq!(
            (view.collect(&"a".into()), view.collect(&"a".into())),
            (Err(AcquireError::Cancelled), Err(AcquireError::NotHeld))
        );
        assert!(view.decide(1, Some(7)).is_none(), "the grant is being given back");
    }

    #[test]
    fn a_kept_conversion_is_resumed_too() {
        let (mut view, a) = (holding_a(), LockName::from("a"));
        view.ask_to_convert(2, "a".into(), Mode::Exclusive, false).unwrap();
        view.keep(2);
        assert_eq!(view.collect(&a), Ok(2));
        assert_eq!(view.resume_acquire(&[(a.clone(), Mode::Exclusive)]), None, "it is held already");
        assert_eq!(view.resume_conversion(&a, Mode::Exclusive), Some(2));
        view.keep(2);
        assert!(view.withdraw(2).is_some());
        assert_eq!(
            (view.resume_conversion(&a, Mode::Exclusive), view.held(&"a".into())),
            (None, Some(held(1)))
        );
    }

    #[test]
    fn a_failed_request_restores_the_untold_cancellation_before_it() {
        let a = LockName::from("a");
        let ends: [fn(&mut LocalView); 3] = [
            |view| assert!(view.decide(2, None).is_some()),
            |view| assert!(view.withdraw(2).is_some()),
            // Giving up one name gives up the whole request.
            |view| assert!(view.give_up(&"b".into()).is_some()),
        ];
        for end in ends {
            let mut view = LocalView::default();
            view.ask(1, wants(&["a"]), true).unwrap();
            assert!(view.withdraw(1).is_some());
            view.ask(2, wants(&["a", "b"]), false).unwrap();
            end(&mut view);
            assert_eq!(
                (view.collect(&a), view.collect(&a)),
                (Err(AcquireError::Cancelled), Err(AcquireError::NotHeld))
            );
            assert_eq!(view.collect(&"b".into()), Err(AcquireError::NotHeld));
        }
        for end in &ends[..2] {
            let mut view = holding_a();
            view.ask_to_convert(1, a.clone(), Mode::Exclusive, true).unwrap();
            assert!(view.withdraw(1).is_some());
            view.ask_to_convert(2, a.clone(), Mode::Exclusive, false).unwrap();
            end(&mut view);
            assert_eq!(
                (view.collect(&a), view.collect(&a)),
                (Err(AcquireError::Cancelled), Err(AcquireError::NotHeld))
            );
            assert_eq!(view.held(&a), Some(held(1)));
        }
    }

    #[test]
    fn a_cancelled_place_is_reported_once() {
        let (mut view, a) = (LocalView::default(), LockName::from("a"));
        view.ask(1, wants(&["a"]), true).unwrap();
        assert_eq!(view.collect(&a), Ok(1));
        assert!(view.withdraw(1).is_some());
        view.ack_cancelled(&a, 9);
        assert_eq!(view.collect(&a), Err(AcquireError::Cancelled));
        assert_eq!(view.collect(&a), Err(AcquireError::NotHeld));

        view.ask(2, wants(&["a"]), false).unwrap();
        assert_eq!(
            view.collect(&a),
            Err(AcquireError::NotHeld),
            "another call may not collect what an acquire waits for"
        );
    }
    #[test]
    fn a_place_to_convert_is_not_shared_and_its_cancellation_is_reported_once() {
        let (mut view, a) = (holding_a(), LockName::from("a"));
        view.ask_to_convert(2, a.clone(), Mode::Exclusive, true).unwrap();
        assert_eq!(view.collect(&a), Ok(2));
        assert_eq!(view.resume_conversion(&a, Mode::Exclusive), None, "no call for it was interrupted");
        let again = view.ask_to_convert(3, a.clone(), Mode::Exclusive, true);
        assert_eq!((again, view.waiting()), (Err(AcquireError::AlreadyWaiting), vec![2]));
        assert!(view.withdraw(2).is_some());
        assert_eq!((view.held(&a), view.is_waiting(&a)), (Some(held(1)), false));
        assert_eq!(view.ask(4, wants(&["a"]), false), Err(AcquireError::AlreadyHeld(held(1))));
        view.ack_cancelled(&a, 9);
        assert_eq!(
            (view.collect(&a), view.collect(&a)),
            (Err(AcquireError::Cancelled), Err(AcquireError::NotHeld))
        );
        assert_eq!(view.held(&a), Some(held(1)));

        view.ask_to_convert(5, a.clone(), Mode::Exclusive, true).unwrap();
        assert!(view.withdraw(5).is_some());
        view.ask_to_convert(6, a.clone(), Mode::Exclusive, true).unwrap();
        assert_eq!(view.collect(&a), Ok(6), "the cancelled one is forgotten");
        assert!(view.decide(5, Some(7)).is_none());
        assert!(view.decide(6, Some(8)).is_some());
        assert_eq!(view.held(&a), Some(Held { mode: Mode::Exclusive, token: 8 }));

        view.ask_to_convert(7, a.clone(), Mode::Exclusive, true).unwrap();
        assert!(view.withdraw(7).is_some());
        assert_eq!(view.give_up(&a).unwrap().released, Released::Hold);
        assert_eq!(view.collect(&a), Err(AcquireError::NotHeld));
    }
}
