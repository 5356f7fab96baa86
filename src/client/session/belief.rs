//! What a session needs to be resumed: the terms that its server has told, and what it believes to
//! have when its connection is lost: the locks that it will claim, and the places in queues that it
//! will take again. Pure.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::broker::{Held, LockName, Mode};
use crate::wire::message::{HelloResult, ResumeGrant};

/// With what a session can be resumed, and the dead-peer timeout told with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) struct ResumeTerms {
    pub(in crate::client) grant: ResumeGrant,
    pub(in crate::client) dead_peer_timeout: Duration,
}

impl ResumeTerms {
    pub(in crate::client) fn of(hello: &HelloResult) -> Option<Self> {
        let dead_peer_timeout = hello.keepalive.dead_peer_timeout;
        hello.resume.map(|grant| Self { grant, dead_peer_timeout })
    }
}

/// The locks and places of a session without a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::client) struct Belief {
    /// What it believes to hold; of a conversion under way, the mode that allows more holders.
    pub(in crate::client) held: HashMap<LockName, Held>,
    /// The places in queues that it had, and for which a caller may come back.
    pub(in crate::client) places: Vec<RememberedPlace>,
    /// Names whose place was cancelled, and no caller has been told so yet.
    pub(in crate::client) cancelled: HashSet<LockName>,
}

/// A place in the queues of some names, for which a caller may come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct RememberedPlace {
    pub(in crate::client) wants: Vec<(LockName, Mode)>,
    /// It is to change the mode of a lock that is held.
    pub(in crate::client) converts: bool,
    /// It was made by a call that was interrupted, as opposed to one that only took the place.
    pub(in crate::client) is_kept: bool,
    /// When the time limit of that call is over; `None` for no limit.
    pub(in crate::client) until: Option<Instant>,
}

impl RememberedPlace {
    fn has(&self, name: &LockName) -> bool {
        self.wants.iter().any(|(other, _)| other == name)
    }
}

impl Belief {
    pub(in crate::client) fn holds_or_waits(&self) -> bool {
        !self.held.is_empty() || !self.places.is_empty()
    }

    pub(in crate::client) fn is_waiting(&self, name: &LockName) -> bool {
        self.places.iter().any(|place| place.has(name))
    }

    /// Gives up the lock, and the place. Returns whether there was either.
    pub(in crate::client) fn give_up(&mut self, name: &LockName) -> bool {
        let held = self.held.remove(name).is_some();
        let places = self.places.len();
        self.places.retain(|place| !place.has(name));
        held || self.places.len() < places
    }

    /// Gives up every place; the next call that asks for one is told that it was cancelled.
    pub(in crate::client) fn cancel_places(&mut self) {
        let names = self.places.drain(..).flat_map(|place| place.wants);
        self.cancelled.extend(names.map(|(name, _)| name));
    }

    /// Removes the place that an interrupted call for exactly these names and modes has kept: the
    /// call has come back.
    pub(in crate::client) fn take_kept(&mut self, wants: &[(LockName, Mode)]) {
        self.places.retain(|place| !place.is_kept || place.wants != wants);
    }

    /// Removes places whose time is over.
    pub(in crate::client) fn forget_places_before(&mut self, now: Instant) {
        self.places.retain(|place| place.until.is_none_or(|until| now < until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(names: &[&str], is_kept: bool) -> RememberedPlace {
        let wants = names.iter().map(|&name| (LockName::from(name), Mode::Shared)).collect();
        RememberedPlace { wants, converts: false, is_kept, until: None }
    }

    #[test]
    fn a_lock_or_a_place_is_given_up_once() {
        let held = HashMap::from([("a".into(), Held { mode: Mode::Shared, token: 1 })]);
        let mut belief = Belief { held, places: vec![place(&["b", "c"], false)], ..Belief::default() };
        assert!(belief.is_waiting(&"c".into()) && !belief.is_waiting(&"a".into()));
        for name in ["a", "c"] {
            assert!(belief.holds_or_waits() && belief.give_up(&name.into()), "{name}");
            assert!(!belief.give_up(&name.into()), "{name}");
        }
        assert!(!belief.give_up(&"b".into()), "it has gone with the place of c");
        assert_eq!(belief, Belief::default());
    }

    #[test]
    fn a_cancelled_place_is_told_by_each_of_its_names() {
        let mut belief = Belief { places: vec![place(&["a", "b"], false)], ..Belief::default() };
        belief.cancel_places();
        assert!(!belief.holds_or_waits());
        assert_eq!(belief.cancelled, HashSet::from(["a".into(), "b".into()]));
    }

    #[test]
    fn only_the_place_of_the_same_interrupted_call_is_taken_back() {
        let places = vec![place(&["a"], true), place(&["b"], false), place(&["c", "d"], true)];
        let mut belief = Belief { places, ..Belief::default() };
        for names in [&["b"][..], &["c"], &["d", "c"]] {
            belief.take_kept(&place(names, true).wants);
            assert_eq!(belief.places.len(), 3);
        }
        belief.take_kept(&place(&["a"], true).wants);
        belief.take_kept(&place(&["c", "d"], true).wants);
        assert_eq!(belief.places, [place(&["b"], false)]);
    }

    #[test]
    fn a_place_lasts_as_long_as_the_call_that_took_it() {
        let now = Instant::now();
        let until = |until| RememberedPlace { until, ..place(&["a"], true) };
        let places = vec![until(None), until(Some(now)), until(Some(now + Duration::from_secs(1)))];
        let mut belief = Belief { places, ..Belief::default() };
        belief.forget_places_before(now);
        assert_eq!(belief.places.len(), 2);
    }
}
