//! A naive model of the rules, which the tests compare with the real ones: everything is in lists,
//! and every question is answered by looking at all of them. It was written from the description of
//! a lock and shares no code and no data structure with the table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::mode::Mode;

/// What can happen. Sessions and names are small numbers. `wait` is `None` for a request that does
/// not wait, and otherwise its time limit, if it has one.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Acquire {
        session: u32,
        wants: Vec<(u8, Mode)>,
        wait: Option<Option<u64>>,
    },
    Convert {
        session: u32,
        name: u8,
        mode: Mode,
        wait: Option<Option<u64>>,
    },
    Release {
        session: u32,
        name: u8,
    },
    /// Cancels the oldest wait of the session.
    Cancel {
        session: u32,
    },
    /// Time passes, and the session ends its waits whose deadlines have come.
    Expire {
        session: u32,
        by: u64,
    },
    /// The session vanishes, or closes in an orderly way.
    End {
        session: u32,
        vanished: bool,
    },
    /// The session gets back what it held before the grace.
    Reclaim {
        session: u32,
        name: u8,
        mode: Mode,
    },
    /// The grace ends.
    Open,
}

/// What the asking session is told at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    Granted { orphaned: bool, holders: usize },
    Busy,
    Queued,
    AlreadyHeld(Mode),
    AlreadyWaiting,
    NotHeld,
    Deadlock,
    ReleasedHold,
    ReleasedPlace,
    Reclaimed,
    Conflict,
    NoGrace,
    Nothing,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Granted { orphaned: bool },
    TimedOut,
    Cancelled,
    Lost,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    pub(super) session: u32,
    pub(super) ticket: u64,
    pub(super) wants: Vec<(u8, Mode)>,
    pub(super) conversion: bool,
    pub(super) deadline: Option<u64>,
}

/// The whole state.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) now: u64,
    pub(super) tickets: u64,
    /// By name and session.
    pub(super) held: BTreeMap<(u8, u32), Mode>,
    /// In the order of arrival.
    pub(super) waiting: Vec<Waiting>,
    pub(super) orphaned: BTreeSet<u8>,
    /// Nothing is granted yet.
    pub(super) grace: bool,
}

/// See [`Model::fingerprint`].
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Fingerprint(FingerprintParts);

type FingerprintParts =
    (Vec<(u32, u32, Mode)>, Vec<(u32, Vec<(u32, Mode)>, bool, bool)>, BTreeSet<u32>, bool);

impl Model {
    /// Applies the event. Returns what the session is told, and which waits ended: session, ticket
    /// and end, sorted.
    pub(super) fn apply(&mut self, event: &Event) -> (Said, Vec<(u32, u64, End)>) {
        let mut ends = Vec::new();
        let said = match event {
            Event::Acquire { session, wants, wait } => self.acquire(*session, wants, *wait),
            Event::Convert { session, name, mode, wait } => self.convert(*session, *name, *mode, *wait),
            Event::Release { session, name } => {
                let place = self.waiting.iter().position(|w| w.session == *session && w.wants_name(*name));
                if let Some(at) = place {
                    ends.push((*session, self.waiting.remove(at).ticket, End::Cancelled));
                }
                let held = self.held.remove(&(*name, *session));
                if held == Some(Mode::Exclusive) {
                    self.orphaned.remove(name);
                }
                match (held, place) {
                    (Some(_), _) => Said::ReleasedHold,
                    (None, Some(_)) => Said::ReleasedPlace,
                    (None, None) => Said::NotHeld,
                }
            }
            Event::Cancel { session } => {
                if let Some(at) = self.waiting.iter().position(|w| w.session == *session) {
                    ends.push((*session, self.waiting.remove(at).ticket, End::Cancelled));
                }
                Said::Nothing
            }
            Event::Expire { session, by } => {
                self.now += by;
                let now = self.now;
                let due = |w: &Waiting| w.session == *session && w.deadline.is_some_and(|d| d <= now);
                ends.extend(
                    self.waiting.iter().filter(|w| due(w)).map(|w| (*session, w.ticket, End::TimedOut)),
                );
                self.waiting.retain(|w| !due(w));
                Said::Nothing
            }
            Event::End { session, vanished } => {
                let own = |w: &&Waiting| w.session == *session;
                ends.extend(self.waiting.iter().filter(own).map(|w| (*session, w.ticket, End::Lost)));
                self.waiting.retain(|w| w.session != *session);
                let freed: Vec<(u8, Mode)> = self
                    .held
                    .iter()
                    .filter(|(at, _)| at.1 == *session)
                    .map(|(at, mode)| (at.0, *mode))
                    .collect();
                for (name, mode) in freed {
                    self.held.remove(&(name, *session));
                    match mode {
                        Mode::Limited(_) | Mode::Shared => {}
                        Mode::Exclusive if *vanished => {
                            self.orphaned.insert(name);
                        }
                        Mode::Exclusive => {
                            self.orphaned.remove(&name);
                        }
                    }
                }
                Said::Nothing
            }
            Event::Reclaim { session, name, mode } => self.reclaim(*session, *name, *mode),
            Event::Open => {
                self.grace = false;
                Said::Nothing
            }
        };
        while let Some(at) = (0..self.waiting.len()).find(|&at| self.is_due(at)) {
            let due = self.waiting.remove(at);
            let orphaned = self.take(due.session, &due.wants);
            ends.push((due.session, due.ticket, End::Granted { orphaned }));
        }
        ends.sort_unstable();
        (said, ends)
    }

    fn acquire(&mut self, session: u32, wants: &[(u8, Mode)], wait: Option<Option<u64>>) -> Said {
        for &(name, _) in wants {
            if let Some(mode) = self.held.get(&(name, session)) {
                return Said::AlreadyHeld(*mode);
            }
            if self.waiting.iter().any(|w| w.session == session && w.wants_name(name)) {
                return Said::AlreadyWaiting;
            }
        }
        self.request(session, wants, false, wait)
    }

    fn convert(&mut self, session: u32, name: u8, mode: Mode, wait: Option<Option<u64>>) -> Said {
        let Some(&held) = self.held.get(&(name, session)) else { return Said::NotHeld };
        if self.waiting.iter().any(|w| w.session == session && w.wants_name(name)) {
            return Said::AlreadyWaiting;
        }
        if most(mode) >= most(held) {
            if held == Mode::Exclusive && held != mode {
                self.orphaned.remove(&name);
            }
            self.held.insert((name, session), mode);
            return Said::Granted { orphaned: false, holders: self.holders(name) };
        }
        self.request(session, &[(name, mode)], true, wait)
    }

    fn reclaim(&mut self, session: u32, name: u8, mode: Mode) -> Said {
        if !self.grace {
            return Said::NoGrace;
        }
        if let Some(mode) = self.held.get(&(name, session)) {
            return Said::AlreadyHeld(*mode);
        }
        if self.waiting.iter().any(|w| w.session == session) {
            return Said::AlreadyWaiting;
        }
        if !self.fits(session, name, mode) {
            return Said::Conflict;
        }
        self.held.insert((name, session), mode);
        Said::Reclaimed
    }

    /// Grants the request, refuses it or lets it wait.
    fn request(
        &mut self,
        session: u32,
        wants: &[(u8, Mode)],
        conversion: bool,
        wait: Option<Option<u64>>,
    ) -> Said {
        self.tickets += 1;
        let deadline = wait.flatten().map(|limit| self.now + limit);
        let ticket = self.tickets;
        self.waiting.push(Waiting { session, ticket, wants: wants.to_vec(), conversion, deadline });
        let at = self.waiting.len() - 1;
        if self.is_due(at) {
            self.waiting.remove(at);
            return self.take_unless_deadlock(session, wants);
        }
        if wait.is_none() {
            self.waiting.remove(at);
            return Said::Busy;
        }
        if self.reaches(session, session, &mut BTreeSet::new()) {
            self.waiting.remove(at);
            return Said::Deadlock;
        }
        Said::Queued
    }

    /// Makes the session a holder of all names, unless others would then wait for each other.
    fn take_unless_deadlock(&mut self, session: u32, wants: &[(u8, Mode)]) -> Said {
        let before = self.clone();
        let orphaned = self.take(session, wants);
        if self.reaches(session, session, &mut BTreeSet::new()) {
            *self = before;
            return Said::Deadlock;
        }
        let holders = if wants.len() == 1 { self.holders(wants[0].0) } else { 1 };
        Said::Granted { orphaned, holders }
    }

    /// Makes the session a holder of all names. Returns whether one of them is orphaned.
    fn take(&mut self, session: u32, wants: &[(u8, Mode)]) -> bool {
        let mut orphaned = false;
        for &(name, mode) in wants {
            self.held.insert((name, session), mode);
            orphaned |= self.orphaned.contains(&name);
        }
        orphaned
    }

    pub(super) fn holders(&self, name: u8) -> usize {
        self.held.keys().filter(|at| at.0 == name).count()
    }

    /// The requests that wait for the name, in the order in which they will be served: conversions
    /// first, and of these the ones that allow the most holders.
    pub(super) fn queue(&self, name: u8) -> Vec<&Waiting> {
        let all = || self.waiting.iter().filter(|w| w.wants_name(name));
        let mut conversions: Vec<&Waiting> = all().filter(|w| w.conversion).collect();
        // A stable sort: those that allow as many holders stay in the order of their arrival.
        conversions.sort_by_key(|w| Reverse(w.wants[0].1));
        conversions.into_iter().chain(all().filter(|w| !w.conversion)).collect()
    }

    /// The modes in which others hold the name.
    fn others(&self, session: u32, name: u8) -> impl Iterator<Item = (u32, Mode)> {
        let others = self.held.iter().filter(move |(at, _)| at.0 == name && at.1 != session);
        others.map(|(at, mode)| (at.1, *mode))
    }

    /// Whether the session can hold the name in `mode` beside the other holders.
    fn fits(&self, session: u32, name: u8, mode: Mode) -> bool {
        let holders = self.others(session, name).count() + 1;
        self.others(session, name).all(|(_, other)| holders <= most(other)) && holders <= most(mode)
    }

    /// The other holders of the name that must go before the session can hold it in `mode`: those
    /// beside which it cannot hold it even if they are alone.
    fn in_the_way(&self, session: u32, name: u8, mode: Mode) -> impl Iterator<Item = u32> {
        let others = self.others(session, name);
        others.filter(move |(_, other)| most(mode) < 2 || most(*other) < 2).map(|(session, _)| session)
    }

    /// Whether the request can be granted.
    fn is_due(&self, at: usize) -> bool {
        let request = &self.waiting[at];
        !self.grace
            && request.wants.iter().all(|&(name, mode)| {
                self.queue(name).first().is_some_and(|head| head.ticket == request.ticket)
                    && self.fits(request.session, name, mode)
            })
    }

    /// The sessions that this one waits for: all that are ahead of it in a queue, and all holders
    /// that must go.
    pub(super) fn waits_for(&self, session: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        for request in self.waiting.iter().filter(|w| w.session == session) {
            for &(name, mode) in &request.wants {
                found.extend(self.in_the_way(session, name, mode));
                let queue = self.queue(name);
                found.extend(queue.iter().take_while(|w| w.ticket != request.ticket).map(|w| w.session));
            }
        }
        found
    }

    /// Whether `from` waits for `to`, directly or through other sessions that are not in `seen`.
    fn reaches(&self, from: u32, to: u32, seen: &mut BTreeSet<u32>) -> bool {
        self.waits_for(from)
            .into_iter()
            .any(|next| next == to || (seen.insert(next) && self.reaches(next, to, seen)))
    }

    /// The state without what only counts up: two states with the same fingerprint behave the same.
    /// To the rules all sessions are alike, and so are all names. So each of `renumberings` gives
    /// them other numbers, first the sessions and then the names, and the lowest result counts.
    fn fingerprint(&self, renumberings: &[(Vec<u32>, Vec<u32>)]) -> Fingerprint {
        let renumbered = |(sessions, names): &(Vec<u32>, Vec<u32>)| {
            let session = |old: u32| sessions[old as usize];
            let name = |old: u8| names[usize::from(old)];
            let mut held: Vec<_> =
                self.held.iter().map(|(at, &mode)| (name(at.0), session(at.1), mode)).collect();
            held.sort_unstable();
            let waiting = self.waiting.iter().map(|w| {
                let mut wants: Vec<_> = w.wants.iter().map(|&(wanted, mode)| (name(wanted), mode)).collect();
                wants.sort_unstable();
                (session(w.session), wants, w.conversion, w.deadline.is_some())
            });
            let orphaned = self.orphaned.iter().map(|&orphaned| name(orphaned)).collect();
            (held, waiting.collect(), orphaned, self.grace)
        };
        Fingerprint(renumberings.iter().map(renumbered).min().unwrap())
    }

    /// What must hold in every state.
    pub(super) fn check(&self, context: &dyn Fn() -> String) {
        for (&(name, _), &mode) in &self.held {
            assert!(self.holders(name) <= most(mode), "too many hold {name} after {}: {self:?}", context());
        }
        for at in 0..self.waiting.len() {
            assert!(!self.is_due(at), "a request waits for what it could have after {}", context());
            let session = self.waiting[at].session;
            let is_cycle = self.reaches(session, session, &mut BTreeSet::new());
            assert!(!is_cycle, "a cycle of waiting sessions after {}: {self:?}", context());
        }
    }
}

/// How many holders a mode allows.
fn most(mode: Mode) -> usize {
    mode.holders_max().map_or(usize::MAX, |most| most as usize)
}

impl Waiting {
    pub(super) fn wants_name(&self, name: u8) -> bool {
        self.wants.iter().any(|want| want.0 == name)
    }
}

pub(super) fn at_most(holders: u32) -> Mode {
    Mode::at_most(holders).unwrap()
}

/// What sessions ask for. To the events, all sessions are alike, and so are all names.
pub(super) fn every_event(sessions: u32, names: u8, with_tries: bool) -> Vec<Event> {
    use Mode::{Exclusive, Shared};
    let two = at_most(2);
    let mut events = Vec::new();
    for session in 0..sessions {
        for name in 0..names {
            for mode in [Exclusive, two, Shared] {
                for wait in [Some(None), None].into_iter().take(1 + usize::from(with_tries)) {
                    events.push(Event::Acquire { session, wants: vec![(name, mode)], wait });
                    events.push(Event::Convert { session, name, mode, wait });
                }
            }
            for other in (0..names).filter(|&other| other != name) {
                for mode in [two, Shared] {
                    let wants = vec![(name, Exclusive), (other, mode)];
                    events.push(Event::Acquire { session, wants, wait: Some(None) });
                }
            }
            events.push(Event::Release { session, name });
        }
        events.push(Event::Cancel { session });
        events.extend([true, false].map(|vanished| Event::End { session, vanished }));
    }
    events
}

/// What can happen in the grace in addition. With several names, sessions get locks back in the two
/// modes that differ most only: there are many states otherwise.
pub(super) fn every_event_of_the_grace(sessions: u32, names: u8) -> Vec<Event> {
    let modes = [Mode::Exclusive, Mode::Shared, at_most(2)];
    let modes = if names > 1 { &modes[..2] } else { &modes };
    let mut events = vec![Event::Open];
    for session in 0..sessions {
        for name in 0..names {
            for &mode in modes {
                events.push(Event::Reclaim { session, name, mode });
            }
        }
    }
    events
}

/// The numbers below `count` in every order.
fn permutations(count: u32) -> Vec<Vec<u32>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let shorter = permutations(last);
    let with_last = |at: u32| {
        shorter.iter().cloned().map(move |mut order| {
            order.insert(at as usize, last);
            order
        })
    };
    (0..count).flat_map(with_last).collect()
}

/// For [`Model::fingerprint`]: every way to number so many sessions and names anew.
/// The states that were reached. Those in which only sessions or names have changed their parts are
/// one.
pub(super) struct SeenStates {
    renumberings: Vec<(Vec<u32>, Vec<u32>)>,
    states: BTreeSet<Fingerprint>,
}

impl SeenStates {
    pub(super) fn new(sessions: u32, names: u32) -> Self {
        Self { renumberings: renumberings(sessions, names), states: BTreeSet::new() }
    }

    /// Returns whether the state is new.
    pub(super) fn insert(&mut self, state: &Model) -> bool {
        self.states.insert(state.fingerprint(&self.renumberings))
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }
}

fn renumberings(sessions: u32, names: u32) -> Vec<(Vec<u32>, Vec<u32>)> {
    let names = permutations(names);
    let of_names = |sessions: Vec<u32>| names.iter().map(move |names| (sessions.clone(), names.clone()));
    permutations(sessions).into_iter().flat_map(of_names).collect()
}
