//! A small broker that can be given one defect: what the checker must convict. Without a defect it
//! keeps all promises, in the plainest way there is, and must be acquitted.

use std::collections::BTreeMap;

use super::subject::{Answer, End, Subject};
use crate::dice::Dice;
use crate::history::{MILLISECOND, Mode, Name, Nanos};

/// What is wrong with a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Grants an exclusive lock that is held.
    GrantsTwice,
    /// Lets a shared holder in beside an exclusive one.
    SharedBesideExclusive,
    /// Lets an exclusive one in beside shared ones.
    ExclusiveBesideShared,
    /// Makes a shared holder exclusive beside others.
    ConvertsBesideOthers,
    /// A token lower than those before.
    TokenGoesBack,
    /// A token twice.
    TokenRepeats,
    /// Grants the last in the queue first.
    Overtakes,
    /// Grants a shared try to whom the holders admit, whoever waits.
    TryOvertakes,
    /// Hands a lock over to the next in the queue, and does not tell it.
    LosesWakeUp,
    /// Does not notice that a session has ended.
    KeepsTheDead,
    /// Says yes to several at once when it has granted only the free ones of them.
    GrantsInPart,
    /// Holds for a waiting request for several what of them is free.
    HoldsWhileWaiting,
    /// Frees what has been held for long.
    FreesByTimer,
    /// Lets anybody release.
    ReleasesForAnybody,
    /// Says yes to a release of what the asker does not hold, and does nothing.
    SaysYes,
    /// Frees what a client holds that it has hung up on, when its own kernel resets the connection:
    /// the client does not know yet.
    TakesOwnResetForWord,
}

/// How long a lock may be held before [`Defect::FreesByTimer`] frees it.
const TIMER: Nanos = MILLISECOND;

#[derive(Clone, Debug)]
struct Hold {
    session: usize,
    mode: Mode,
    since: Nanos,
}

#[derive(Clone, Debug)]
struct Request {
    session: usize,
    ticket: u64,
    wants: Vec<(Name, Mode)>,
    is_conversion: bool,
}

/// The broker.
pub(crate) struct Broken {
    defect: Option<Defect>,
    dice: Dice,
    now: Nanos,
    token: u64,
    holds: BTreeMap<Name, Vec<Hold>>,
    /// Conversions first, else in the order of arrival.
    queue: Vec<Request>,
    decided: Vec<(usize, u64, End)>,
}

impl Broken {
    pub(crate) fn new(defect: Option<Defect>, seed: u64) -> Self {
        let dice = Dice::of_part(seed, 1);
        let (holds, queue, decided) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { defect, dice, now: 0, token: 10_000, holds, queue, decided }
    }

    /// Whether it does the wrong thing this time.
    fn errs(&mut self, defect: Defect) -> bool {
        self.defect == Some(defect) && self.dice.once_in(6)
    }

    fn holding(&self, name: Name) -> &[Hold] {
        self.holds.get(&name).map_or(&[], Vec::as_slice)
    }

    fn holds(&self, session: usize, name: Name) -> bool {
        self.holding(name).iter().any(|hold| hold.session == session)
    }

    fn admits(&self, session: usize, name: Name, mode: Mode) -> bool {
        let mut others = self.holding(name).iter().filter(|hold| hold.session != session);
        others.all(|hold| mode == Mode::Shared && hold.mode == Mode::Shared)
    }

    /// Whether one of the first `ahead` requests wants the name.
    fn is_wanted(&self, name: Name, ahead: usize) -> bool {
        self.queue[..ahead].iter().any(|request| request.wants.iter().any(|(wanted, _)| *wanted == name))
    }

    fn can_have(&self, session: usize, wants: &[(Name, Mode)], ahead: usize) -> bool {
        wants.iter().all(|&(name, mode)| self.admits(session, name, mode) && !self.is_wanted(name, ahead))
    }

    fn next_token(&mut self) -> u64 {
        if self.errs(Defect::TokenRepeats) {
            return self.token;
        }
        if self.errs(Defect::TokenGoesBack) {
            return self.token - 950;
        }
        self.token += 100;
        self.token
    }

    fn hold(&mut self, session: usize, wants: &[(Name, Mode)]) {
        for &(name, mode) in wants {
            let holders = self.holds.entry(name).or_default();
            holders.retain(|hold| hold.session != session);
            holders.push(Hold { session, mode, since: self.now });
        }
    }

    fn grant(&mut self, session: usize, wants: &[(Name, Mode)]) -> u64 {
        self.hold(session, wants);
        self.next_token()
    }

    /// What a defect grants though it must not.
    fn wrongly(&mut self, session: usize, wants: &[(Name, Mode)], waits: bool) -> Option<u64> {
        let (name, mode) = wants[0];
        let beside = self.holding(name).iter().find(|hold| hold.session != session).map(|hold| hold.mode);
        let errs = match (wants.len(), mode, beside) {
            (1, Mode::Exclusive, Some(Mode::Exclusive)) => self.errs(Defect::GrantsTwice),
            (1, Mode::Exclusive, Some(Mode::Shared)) => self.errs(Defect::ExclusiveBesideShared),
            (1, Mode::Shared, Some(Mode::Exclusive)) => self.errs(Defect::SharedBesideExclusive),
            (1, Mode::Shared, Some(Mode::Shared)) if !waits => self.defect == Some(Defect::TryOvertakes),
            (2.., ..) => {
                let free = |want: &&(Name, Mode)| self.can_have(session, &[**want], self.queue.len());
                let part: Vec<_> = wants.iter().filter(free).copied().collect();
                if !part.is_empty() && self.errs(Defect::GrantsInPart) {
                    return Some(self.grant(session, &part));
                }
                false
            }
            _ => false,
        };
        errs.then(|| self.grant(session, wants))
    }

    /// Grants what can be had, again and again, whoever is first.
    fn settle(&mut self) {
        loop {
            let can_have = |at: &usize| {
                let request = &self.queue[*at];
                self.can_have(request.session, &request.wants, *at)
            };
            let first = (0..self.queue.len()).find(can_have);
            let overtaker = first.filter(|_| self.defect == Some(Defect::Overtakes)).and_then(|first| {
                let name = self.queue[first].wants[0].0;
                let admitted = |at: &usize| {
                    let request = &self.queue[*at];
                    request.wants[0].0 == name && self.can_have(request.session, &request.wants, 0)
                };
                (first + 1..self.queue.len()).rfind(admitted)
            });
            let errs = overtaker.is_some() && self.errs(Defect::Overtakes);
            let Some(at) = overtaker.filter(|_| errs).or(first) else { break };
            let request = self.queue.remove(at);
            let token = self.grant(request.session, &request.wants);
            if !self.errs(Defect::LosesWakeUp) {
                self.decided.push((request.session, request.ticket, End::Granted(token)));
            }
        }
        self.hold_for_waiting();
    }

    /// The defect of taking some of a set while it waits for the others.
    fn hold_for_waiting(&mut self) {
        if self.defect != Some(Defect::HoldsWhileWaiting) {
            return;
        }
        for at in 0..self.queue.len() {
            let request = self.queue[at].clone();
            for want in request.wants.iter().filter(|_| request.wants.len() > 1) {
                if !self.holds(request.session, want.0) && self.can_have(request.session, &[*want], at) {
                    self.hold(request.session, &[*want]);
                }
            }
        }
    }

    /// Whether the session waits, over others, for itself.
    fn closes_circle(&self, session: usize) -> bool {
        let mut reached = vec![session];
        let mut next = 0;
        while let Some(&from) = reached.get(next) {
            next += 1;
            for other in self.waits_for(from) {
                if other == session {
                    return true;
                }
                if !reached.contains(&other) {
                    reached.push(other);
                }
            }
        }
        false
    }

    fn waits_for(&self, session: usize) -> Vec<usize> {
        let mut found = Vec::new();
        for (at, request) in self.queue.iter().enumerate().filter(|(_, r)| r.session == session) {
            for &(name, mode) in &request.wants {
                let ahead = self.queue[..at].iter().filter(|r| r.wants.iter().any(|(n, _)| *n == name));
                found.extend(ahead.map(|request| request.session));
                let exclude = |hold: &&Hold| mode == Mode::Exclusive || hold.mode == Mode::Exclusive;
                found.extend(self.holding(name).iter().filter(exclude).map(|hold| hold.session));
            }
        }
        found.retain(|&other| other != session);
        found
    }

    fn enqueue(&mut self, request: Request) -> Answer {
        let session = request.session;
        let conversions = self.queue.iter().filter(|request| request.is_conversion).count();
        let at = if request.is_conversion { conversions } else { self.queue.len() };
        self.queue.insert(at, request);
        if self.closes_circle(session) {
            self.queue.remove(at);
            return Answer::Deadlock;
        }
        self.hold_for_waiting();
        Answer::Queued
    }

    fn unhold(&mut self, session: usize, name: Name) -> bool {
        let holders = self.holds.entry(name).or_default();
        let before = holders.len();
        holders.retain(|hold| hold.session != session);
        before > holders.len()
    }

    fn withdraw(&mut self, leaves: impl Fn(&Request) -> bool, why: End) {
        let gone: Vec<Request> = self.queue.extract_if(.., |request| leaves(request)).collect();
        for request in gone {
            if self.defect == Some(Defect::HoldsWhileWaiting) && !request.is_conversion {
                request.wants.iter().for_each(|(name, _)| {
                    self.unhold(request.session, *name);
                });
            }
            self.decided.push((request.session, request.ticket, why));
        }
        self.settle();
    }
}

impl Subject for Broken {
    fn open(&mut self, _session: usize) {}

    fn acquire(&mut self, session: usize, wants: &[(Name, Mode)], ticket: Option<u64>) -> Answer {
        if self.can_have(session, wants, self.queue.len()) {
            return Answer::Granted(self.grant(session, wants));
        }
        if let Some(token) = self.wrongly(session, wants, ticket.is_some()) {
            return Answer::Granted(token);
        }
        let Some(ticket) = ticket else { return Answer::Busy };
        self.enqueue(Request { session, ticket, wants: wants.to_vec(), is_conversion: false })
    }

    fn convert(&mut self, session: usize, name: Name, mode: Mode, ticket: Option<u64>) -> Answer {
        if !self.holds(session, name) {
            return Answer::NotHeld;
        }
        if mode == Mode::Shared {
            self.hold(session, &[(name, mode)]);
            self.settle();
            return Answer::Granted(self.token);
        }
        if self.admits(session, name, mode) || self.defect == Some(Defect::ConvertsBesideOthers) {
            return Answer::Granted(self.grant(session, &[(name, mode)]));
        }
        let Some(ticket) = ticket else { return Answer::Busy };
        self.enqueue(Request { session, ticket, wants: vec![(name, mode)], is_conversion: true })
    }

    fn release(&mut self, session: usize, name: Name) -> bool {
        if self.unhold(session, name) {
            self.settle();
            return true;
        }
        if self.defect == Some(Defect::ReleasesForAnybody) && !self.holding(name).is_empty() {
            self.holds.remove(&name);
            self.settle();
            return true;
        }
        self.defect == Some(Defect::GrantsInPart) || self.defect == Some(Defect::SaysYes)
    }

    fn cancel(&mut self, session: usize, ticket: u64) {
        self.withdraw(|request| request.session == session && request.ticket == ticket, End::Cancelled);
    }

    fn holders(&mut self, _session: usize, name: Name) -> u32 {
        u32::try_from(self.holding(name).len()).unwrap()
    }

    fn hang_up(&mut self, session: usize) {
        self.withdraw(|request| request.session == session, End::Lost);
    }

    fn own_reset(&mut self, session: usize) {
        if self.defect == Some(Defect::TakesOwnResetForWord) {
            self.end(session);
        }
    }

    fn end(&mut self, session: usize) {
        if self.defect == Some(Defect::KeepsTheDead) {
            return;
        }
        self.holds.values_mut().for_each(|holders| holders.retain(|hold| hold.session != session));
        self.withdraw(|request| request.session == session, End::Lost);
    }

    fn pass_time(&mut self, now: Nanos) {
        self.now = now;
        if self.defect == Some(Defect::FreesByTimer) {
            let long = |hold: &Hold| now.saturating_sub(hold.since) > TIMER;
            self.holds.values_mut().for_each(|holders| holders.retain(|hold| !long(hold)));
            self.settle();
        }
    }

    fn decided(&mut self) -> Vec<(usize, u64, End)> {
        std::mem::take(&mut self.decided)
    }
}
