//! What a session holds and waits for, as its own calls have made it: which calls it may make, and what is
//! to be taken back when one of them is given up. Pure bookkeeping: sends nothing, knows no connection.
//!
//! A request is *decided* exactly once, by whoever takes it out of [`Claims`]: the thread that reads its
//! reply, or one that gives it up. That is what makes a grant that crosses a cancel either delivered or
//! given back, never both.

use std::collections::HashMap;

use crate::broker::{AcquireError, Held, LockName, Mode, Released};

/// What the session has to do with one name. Not listed: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// The server granted it, and it was not released since.
    Held(Held),
    /// This request asks for it.
    Waiting(u64),
    /// It is held, and this request asks for it in another mode.
    Converting(u64, Held),
    /// A place in the queue was taken or kept under this request and cancelled, and nobody has been told.
    Cancelled(u64),
    /// The same of a place that was to make exclusive what is still held.
    Unconverted(u64, Held),
}

/// What kind of request waits, and so what its end means to the names in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody waits for the outcome.
    Acquire,
    /// A place in the queue, whose outcome may be asked for later.
    Enqueue,
    /// From what is held to exclusive.
    Upgrade(Held),
    /// The same as a place in the queue, whose outcome may be asked for later.
    EnqueuedUpgrade(Held),
    /// From what is held to shared: never waits, so it cannot be given up either.
    Downgrade(Held),
}

/// A request that has not been decided.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) wants: Vec<(LockName, Mode)>,
    pub(super) kind: Kind,
    /// Whoever waited for the outcome was interrupted, and may come back.
    kept: bool,
    /// The cancelled places that it took the place of, by request: should it fail, they are still to be told of.
    untold: Vec<(LockName, u64)>,
}

impl Pending {
    fn new(wants: Vec<(LockName, Mode)>, kind: Kind, untold: Vec<(LockName, u64)>) -> Self {
        Self { wants, kind, kept: false, untold }
    }

    /// What is left at a name if the request has come to nothing: what there was before.
    fn left(&self, name: &LockName) -> Option<Claim> {
        let untold = self.untold.iter().find(|(other, _)| other == name).map(|&(_, id)| id);
        match (self.kind, untold) {
            (Kind::Acquire | Kind::Enqueue, untold) => untold.map(Claim::Cancelled),
            (Kind::Upgrade(held) | Kind::EnqueuedUpgrade(held) | Kind::Downgrade(held), Some(id)) => {
                Some(Claim::Unconverted(id, held))
            }
            (Kind::Upgrade(held) | Kind::EnqueuedUpgrade(held) | Kind::Downgrade(held), None) => {
                Some(Claim::Held(held))
            }
        }
    }

    /// Whether the outcome may be asked for later.
    fn is_place(&self) -> bool {
        self.kept || matches!(self.kind, Kind::Enqueue | Kind::EnqueuedUpgrade(_))
    }
}

/// What there is at a name for a caller who comes to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The outcome is that of this request.
    Taken(u64),
    /// It was cancelled.
    Cancelled,
    /// There is none.
    None,
}

/// What a release comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    pub(super) released: Released,
    /// The names that go with it: all of the request, if it was a place.
    pub(super) names: Vec<LockName>,
    /// The request given up.
    pub(super) request: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Claims {
    names: HashMap<LockName, Claim>,
    requests: HashMap<u64, Pending>,
}

impl Claims {
    /// Enters the request `id` for these names, if the session has nothing to do with any of them.
    pub(super) fn ask(
        &mut self,
        id: u64,
        wants: Vec<(LockName, Mode)>,
        kind: Kind,
    ) -> Result<(), AcquireError> {
        let mut untold = Vec::new();
        for (name, _) in &wants {
            match self.names.get(name) {
                None => {}
                Some(&Claim::Cancelled(id)) => untold.push((name.clone(), id)),
                Some(Claim::Held(held) | Claim::Converting(_, held) | Claim::Unconverted(_, held)) => {
                    return Err(AcquireError::AlreadyHeld(*held));
                }
                Some(Claim::Waiting(_)) => return Err(AcquireError::AlreadyWaiting),
            }
        }
        self.names.extend(wants.iter().map(|(name, _)| (name.clone(), Claim::Waiting(id))));
        self.requests.insert(id, Pending::new(wants, kind, untold));
        Ok(())
    }

    /// Enters the request `id` to change the mode of what is held, in one of the ways there are of that.
    pub(super) fn ask_to_convert(
        &mut self,
        id: u64,
        name: LockName,
        way: fn(Held) -> Kind,
    ) -> Result<(), AcquireError> {
        let claim = self.names.get_mut(&name);
        let (held, untold) = match claim.as_deref() {
            Some(&Claim::Held(held)) => (held, Vec::new()),
            Some(&Claim::Unconverted(id, held)) => (held, vec![(name.clone(), id)]),
            Some(Claim::Converting(..)) => return Err(AcquireError::AlreadyWaiting),
            _ => return Err(AcquireError::NotHeld),
        };
        if let Some(claim) = claim {
            *claim = Claim::Converting(id, held);
        }
        let kind = way(held);
        let mode = if kind == Kind::Downgrade(held) { Mode::Shared } else { Mode::Exclusive };
        self.requests.insert(id, Pending::new(vec![(name, mode)], kind, untold));
        Ok(())
    }

    /// Whoever waits for the outcome of the request stops waiting, and the request stays. False if it has
    /// been given up before.
    pub(super) fn keep(&mut self, id: u64) -> bool {
        let pending = self.requests.get_mut(&id);
        pending.map(|pending| pending.kept = true).is_some()
    }

    /// The acquire of just this that was kept, for somebody who now waits for its outcome.
    pub(super) fn take_up_acquire(&mut self, wants: &[(LockName, Mode)]) -> Option<u64> {
        let Claim::Waiting(id) = *self.names.get(&wants.first()?.0)? else { return None };
        self.take_up(id, wants)
    }

    /// The same for a conversion.
    pub(super) fn take_up_conversion(&mut self, name: &LockName, mode: Mode) -> Option<u64> {
        let Claim::Converting(id, _) = *self.names.get(name)? else { return None };
        self.take_up(id, &[(name.clone(), mode)])
    }

    fn take_up(&mut self, id: u64, wants: &[(LockName, Mode)]) -> Option<u64> {
        let pending = self.requests.get_mut(&id)?;
        let is_it = pending.kept && pending.wants == wants;
        pending.kept &= !is_it;
        is_it.then_some(id)
    }

    /// The reply to a request says that it was granted, with this token, or was not. `None` if it has been
    /// given up before: then a grant is being given back, and is not to be delivered.
    pub(super) fn decide(&mut self, id: u64, granted: Option<u64>) -> Option<Pending> {
        let pending = self.requests.remove(&id)?;
        for (name, mode) in &pending.wants {
            let granted = granted.map(|token| Claim::Held(Held { mode: *mode, token }));
            self.leave(name, granted.or_else(|| pending.left(name)));
        }
        Some(pending)
    }

    /// Gives a request up; the caller takes it back from the server. What was held stays so.
    pub(super) fn withdraw(&mut self, id: u64) -> Option<Pending> {
        let pending = self.requests.remove(&id)?;
        for (name, _) in &pending.wants {
            let left = match (pending.kind, pending.is_place()) {
                (Kind::Acquire | Kind::Enqueue, true) => Some(Claim::Cancelled(id)),
                (Kind::Upgrade(held) | Kind::EnqueuedUpgrade(held), true) => {
                    Some(Claim::Unconverted(id, held))
                }
                _ => pending.left(name),
            };
            self.leave(name, left);
        }
        Some(pending)
    }

    fn leave(&mut self, name: &LockName, claim: Option<Claim>) {
        match claim {
            Some(claim) => self.names.insert(name.clone(), claim),
            None => self.names.remove(name),
        };
    }

    /// The requests that can be withdrawn.
    pub(super) fn waiting(&self) -> Vec<u64> {
        let can_wait = |pending: &Pending| !matches!(pending.kind, Kind::Downgrade(_));
        self.requests.iter().filter(|(_, pending)| can_wait(pending)).map(|(&id, _)| id).collect()
    }

    /// Gives up the lock or the place at `name`; the caller tells the server. `None` if there is neither.
    pub(super) fn give_up(&mut self, name: &LockName) -> Option<GivenUp> {
        match self.names.remove(name)? {
            Claim::Held(_) | Claim::Unconverted(..) => {
                Some(GivenUp { released: Released::Hold, names: vec![name.clone()], request: None })
            }
            Claim::Converting(id, _) => {
                self.requests.remove(&id);
                Some(GivenUp { released: Released::Hold, names: vec![name.clone()], request: Some(id) })
            }
            Claim::Waiting(id) => {
                let pending = self.requests.remove(&id);
                let wants = pending.iter().flat_map(|pending| &pending.wants);
                let names: Vec<LockName> = wants.map(|(name, _)| name.clone()).collect();
                for other in &names {
                    let left = pending.as_ref().and_then(|pending| pending.left(other));
                    self.leave(other, left.filter(|_| other != name));
                }
                Some(GivenUp { released: Released::Place, names, request: Some(id) })
            }
            Claim::Cancelled(_) => None,
        }
    }

    /// The place at `name` that was taken without waiting there, or kept. That it was cancelled is told once.
    pub(super) fn place(&mut self, name: &LockName) -> Place {
        match self.names.get(name) {
            Some(&(Claim::Waiting(id) | Claim::Converting(id, _))) => match self.requests.get(&id) {
                Some(pending) if pending.is_place() => Place::Taken(id),
                _ => Place::None,
            },
            Some(&(Claim::Cancelled(id) | Claim::Unconverted(id, _))) => {
                self.told_cancelled(name, id);
                Place::Cancelled
            }
            Some(Claim::Held(_)) | None => Place::None,
        }
    }

    /// Somebody has been told that the place at `name`, taken under the request `id`, was cancelled.
    pub(super) fn told_cancelled(&mut self, name: &LockName, id: u64) {
        match self.names.get(name) {
            Some(&Claim::Cancelled(told)) if told == id => self.leave(name, None),
            Some(&Claim::Unconverted(told, held)) if told == id => self.leave(name, Some(Claim::Held(held))),
            _ => {}
        }
    }

    /// Whether any name is held or asked for.
    pub(super) fn hold_or_wait(&self) -> bool {
        self.names.values().any(|claim| !matches!(claim, Claim::Cancelled(_)))
    }

    /// Whether a request of the session asks for `name`.
    pub(super) fn is_waiting(&self, name: &LockName) -> bool {
        matches!(self.names.get(name), Some(Claim::Waiting(_) | Claim::Converting(..)))
    }

    /// What is held on `name`.
    pub(super) fn held(&self, name: &LockName) -> Option<Held> {
        match self.names.get(name)? {
            Claim::Held(held) | Claim::Converting(_, held) | Claim::Unconverted(_, held) => Some(*held),
            Claim::Waiting(_) | Claim::Cancelled(_) => None,
        }
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

    /// Claims in which `a` is held under token 1.
    fn holding_a() -> Claims {
        let mut claims = Claims::default();
        claims.ask(1, wants(&["a"]), Kind::Acquire).unwrap();
        assert!(claims.decide(1, Some(1)).is_some());
        claims
    }

    #[test]
    fn a_name_is_asked_for_once() {
        let mut claims = holding_a();
        assert_eq!(claims.ask(2, wants(&["b", "a"]), Kind::Acquire), Err(AcquireError::AlreadyHeld(held(1))));
        claims.ask(3, wants(&["b"]), Kind::Acquire).unwrap();
        assert_eq!(claims.ask(4, wants(&["b"]), Kind::Enqueue), Err(AcquireError::AlreadyWaiting));
        assert!(claims.decide(3, None).is_some());
        claims.ask(5, wants(&["b"]), Kind::Acquire).unwrap();
    }

    #[test]
    fn a_request_is_decided_once() {
        let mut claims = Claims::default();
        claims.ask(1, wants(&["a", "b"]), Kind::Acquire).unwrap();
        assert_eq!(claims.withdraw(1).unwrap().wants.len(), 2);
        assert!(claims.decide(1, Some(7)).is_none(), "the grant is being given back");
        assert!(claims.withdraw(1).is_none());
        assert_eq!(claims.held(&"a".into()), None);

        claims.ask(2, wants(&["a"]), Kind::Acquire).unwrap();
        assert!(claims.decide(2, Some(8)).is_some());
        assert!(claims.withdraw(2).is_none(), "the grant stands");
        assert_eq!(claims.held(&"a".into()), Some(held(8)));
    }

    #[test]
    fn a_place_is_given_up_whole() {
        let mut claims = Claims::default();
        claims.ask(1, wants(&["a", "b"]), Kind::Acquire).unwrap();
        let given = claims.give_up(&"b".into()).unwrap();
        assert_eq!((given.released, given.request), (Released::Place, Some(1)));
        assert_eq!(given.names, [LockName::from("a"), "b".into()]);
        assert_eq!(claims.give_up(&"a".into()), None);
        assert!(claims.decide(1, Some(1)).is_none());
    }

    #[test]
    fn a_conversion_that_fails_leaves_what_was_held() {
        let a = LockName::from("a");
        for end in [|c: &mut Claims| c.decide(2, None).is_some(), |c: &mut Claims| c.withdraw(2).is_some()] {
            let mut claims = holding_a();
            claims.ask_to_convert(2, a.clone(), Kind::Upgrade).unwrap();
            let again = claims.ask_to_convert(3, a.clone(), Kind::Upgrade);
            assert_eq!(again, Err(AcquireError::AlreadyWaiting));
            assert_eq!(claims.waiting(), [2]);
            assert!(end(&mut claims));
            assert_eq!(claims.held(&a), Some(held(1)));
        }
        let mut claims = holding_a();
        claims.ask_to_convert(2, a.clone(), Kind::Upgrade).unwrap();
        assert!(claims.decide(2, Some(5)).is_some());
        assert_eq!(claims.held(&a), Some(Held { mode: Mode::Exclusive, token: 5 }));
        claims.ask_to_convert(3, a.clone(), Kind::Downgrade).unwrap();
        assert!(claims.waiting().is_empty(), "nobody can take a downgrade back");
        assert_eq!(claims.give_up(&a).unwrap().released, Released::Hold);
        assert!(claims.decide(3, Some(5)).is_none());
        assert_eq!(claims.ask_to_convert(4, a, Kind::Downgrade), Err(AcquireError::NotHeld));
    }

    #[test]
    fn a_request_that_was_kept_is_taken_up_by_one_who_asks_for_just_that() {
        let mut claims = Claims::default();
        claims.ask(1, wants(&["a", "b"]), Kind::Acquire).unwrap();
        assert_eq!(claims.take_up_acquire(&wants(&["a", "b"])), None, "somebody waits for it");
        assert!(claims.keep(1) && !claims.keep(2));
        assert_eq!(claims.take_up_acquire(&wants(&["a"])), None);
        assert_eq!(
            claims.take_up_acquire(&[("a".into(), Mode::Exclusive), ("b".into(), Mode::Shared)]),
            None
        );
        assert_eq!(claims.place(&"b".into()), Place::Taken(1));
        assert_eq!(claims.take_up_conversion(&"a".into(), Mode::Shared), None, "it is not held");
        assert_eq!(claims.ask(3, wants(&["a"]), Kind::Acquire), Err(AcquireError::AlreadyWaiting));
        assert_eq!(claims.take_up_acquire(&wants(&["a", "b"])), Some(1));
        assert_eq!(claims.take_up_acquire(&wants(&["a", "b"])), None, "one is enough");
        assert_eq!(claims.place(&"b".into()), Place::None);

        claims.keep(1);
        assert!(claims.withdraw(1).is_some());
        assert_eq!((claims.place(&"a".into()), claims.place(&"a".into())), (Place::Cancelled, Place::None));
        assert!(claims.decide(1, Some(7)).is_none(), "the grant is being given back");
    }

    #[test]
    fn a_conversion_that_was_kept_is_taken_up_too() {
        let (mut claims, a) = (holding_a(), LockName::from("a"));
        claims.ask_to_convert(2, "a".into(), Kind::Upgrade).unwrap();
        claims.keep(2);
        assert_eq!(claims.place(&a), Place::Taken(2));
        assert_eq!(claims.take_up_acquire(&[(a.clone(), Mode::Exclusive)]), None, "it is held already");
        assert_eq!(claims.take_up_conversion(&a, Mode::Exclusive), Some(2));
        claims.keep(2);
        assert!(claims.withdraw(2).is_some());
        assert_eq!(
            (claims.take_up_conversion(&a, Mode::Exclusive), claims.held(&"a".into())),
            (None, Some(held(1)))
        );
    }

    #[test]
    fn a_request_that_fails_leaves_it_to_be_told_that_a_place_was_cancelled() {
        let a = LockName::from("a");
        let ends: [fn(&mut Claims); 3] = [
            |claims| assert!(claims.decide(2, None).is_some()),
            |claims| assert!(claims.withdraw(2).is_some()),
            // With one of its names the whole set is given up.
            |claims| assert!(claims.give_up(&"b".into()).is_some()),
        ];
        for end in ends {
            let mut claims = Claims::default();
            claims.ask(1, wants(&["a"]), Kind::Enqueue).unwrap();
            assert!(claims.withdraw(1).is_some());
            claims.ask(2, wants(&["a", "b"]), Kind::Acquire).unwrap();
            end(&mut claims);
            assert_eq!((claims.place(&a), claims.place(&a)), (Place::Cancelled, Place::None));
            assert_eq!(claims.place(&"b".into()), Place::None);
        }
        for end in &ends[..2] {
            let mut claims = holding_a();
            claims.ask_to_convert(1, a.clone(), Kind::EnqueuedUpgrade).unwrap();
            assert!(claims.withdraw(1).is_some());
            claims.ask_to_convert(2, a.clone(), Kind::Upgrade).unwrap();
            end(&mut claims);
            assert_eq!((claims.place(&a), claims.place(&a)), (Place::Cancelled, Place::None));
            assert_eq!(claims.held(&a), Some(held(1)));
        }
    }

    #[test]
    fn a_cancelled_place_is_told_of_once() {
        let (mut claims, a) = (Claims::default(), LockName::from("a"));
        claims.ask(1, wants(&["a"]), Kind::Enqueue).unwrap();
        assert_eq!(claims.place(&a), Place::Taken(1));
        assert!(claims.withdraw(1).is_some());
        claims.told_cancelled(&a, 9);
        assert_eq!(claims.place(&a), Place::Cancelled);
        assert_eq!(claims.place(&a), Place::None);

        claims.ask(2, wants(&["a"]), Kind::Acquire).unwrap();
        assert_eq!(claims.place(&a), Place::None, "nobody else may collect what an acquire waits for");
    }
    #[test]
    fn a_place_to_convert_is_nobody_elses_and_its_end_is_told_once() {
        let (mut claims, a) = (holding_a(), LockName::from("a"));
        claims.ask_to_convert(2, a.clone(), Kind::EnqueuedUpgrade).unwrap();
        assert_eq!(claims.place(&a), Place::Taken(2));
        assert_eq!(
            claims.take_up_conversion(&a, Mode::Exclusive),
            None,
            "no call of that has been interrupted"
        );
        let again = claims.ask_to_convert(3, a.clone(), Kind::EnqueuedUpgrade);
        assert_eq!((again, claims.waiting()), (Err(AcquireError::AlreadyWaiting), vec![2]));
        assert!(claims.withdraw(2).is_some());
        assert_eq!((claims.held(&a), claims.is_waiting(&a)), (Some(held(1)), false));
        assert_eq!(claims.ask(4, wants(&["a"]), Kind::Acquire), Err(AcquireError::AlreadyHeld(held(1))));
        claims.told_cancelled(&a, 9);
        assert_eq!((claims.place(&a), claims.place(&a)), (Place::Cancelled, Place::None));
        assert_eq!(claims.held(&a), Some(held(1)));

        claims.ask_to_convert(5, a.clone(), Kind::EnqueuedUpgrade).unwrap();
        assert!(claims.withdraw(5).is_some());
        claims.ask_to_convert(6, a.clone(), Kind::EnqueuedUpgrade).unwrap();
        assert_eq!(claims.place(&a), Place::Taken(6), "the cancelled one is forgotten");
        assert!(claims.decide(5, Some(7)).is_none());
        assert!(claims.decide(6, Some(8)).is_some());
        assert_eq!(claims.held(&a), Some(Held { mode: Mode::Exclusive, token: 8 }));

        claims.ask_to_convert(7, a.clone(), Kind::EnqueuedUpgrade).unwrap();
        assert!(claims.withdraw(7).is_some());
        assert_eq!(claims.give_up(&a).unwrap().released, Released::Hold);
        assert_eq!(claims.place(&a), Place::None);
    }
}
