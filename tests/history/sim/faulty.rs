//! A small broker that can be given one defect, which the checker must find. Without a defect it
//! keeps all promises in the simplest possible way, and must be acquitted.

use std::collections::BTreeMap;

use super::broker_under_test::{Answer, BrokerUnderTest, End};
use super::tokens::{Counters, TokenDefect, Tokens};
use crate::history::{MILLISECOND, Mode, Name, Nanos};
use crate::random::Random;

/// One defect of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Grants an exclusive lock that another session holds.
    GrantsTwice,
    /// Grants a shared lock while another session holds it exclusively.
    SharedWithExclusive,
    /// Grants an exclusive lock while other sessions share it.
    ExclusiveWithShared,
    /// Converts a holder to a mode that allows fewer holders while there are too many others.
    ConvertsWithOtherHolders,
    /// Grants a limited lock to one session more than the limit allows.
    LimitIsTooHigh,
    /// Grants a limited lock to one session fewer than the limit allows.
    LimitIsTooLow,
    /// Takes the number of holders that the newcomer allows, and not those that the holders of
    /// limited locks allow.
    IgnoresLimitsOfHolders,
    /// Takes the numbers of holders that the holders allow, and not the limit of the newcomer.
    IgnoresLimitOfNewcomer,
    /// Forgets the limit of a holder that converts.
    ForgetsLimitOnConversion,
    /// Grants a limited lock whenever the holders allow it, even if an exclusive request waits.
    LimitedOvertakesExclusive,
    /// Counts tokens wrongly.
    Tokens(TokenDefect),
    /// Grants the last in the queue first.
    Overtakes,
    /// Grants a shared try whenever the holders are compatible, even if other requests wait.
    TryOvertakes,
    /// Grants a lock to the next request in the queue, and does not tell its client.
    LosesWakeup,
    /// Does not release the locks of a session that has ended.
    KeepsLocksOfEndedSessions,
    /// Reports success for several names when it has granted only the free ones.
    GrantsPartOfSet,
    /// Holds the free names of a set for a request that waits for the others.
    HoldsWhileWaiting,
    /// Releases a lock that has been held for a long time.
    ReleasesByTimer,
    /// Lets a session that does not hold the lock release it.
    ReleasesForNonHolder,
    /// Reports success for a release by a session that does not hold the lock, and does nothing.
    ConfirmsFalseRelease,
    /// After it has hung up on a client, releases that client's locks when its own kernel resets
    /// the connection, although the client does not know yet.
    TakesOwnResetForClientEnd,
}

/// How long a lock may be held before [`Defect::ReleasesByTimer`] releases it.
const TIMER: Nanos = MILLISECOND;

#[derive(Clone, Debug)]
struct Hold {
    session: usize,
    mode: Mode,
    since: Nanos,
    token: u64,
}

#[derive(Clone, Debug)]
struct Request {
    session: usize,
    ticket: u64,
    wants: Vec<(Name, Mode)>,
    is_conversion: bool,
}

/// The broker with a defect.
pub(crate) struct FaultyBroker {
    defect: Option<Defect>,
    random: Random,
    now: Nanos,
    tokens: Tokens,
    holds: BTreeMap<Name, Vec<Hold>>,
    /// Conversions first, then the others in the order of arrival.
    queue: Vec<Request>,
    decided: Vec<(usize, u64, End)>,
}

impl FaultyBroker {
    pub(crate) fn new(defect: Option<Defect>, seed: u64) -> Self {
        let counters = match defect {
            // Only a counter of one name can start again because that name was forgotten.
            Some(Defect::Tokens(TokenDefect::StartsAgain)) => Counters::Names,
            _ => Counters::Lanes,
        };
        Self::with_counters(counters, defect, seed)
    }

    pub(crate) fn with_counters(counters: Counters, defect: Option<Defect>, seed: u64) -> Self {
        let of_tokens = match defect {
            Some(Defect::Tokens(defect)) => Some(defect),
            _ => None,
        };
        let tokens = Tokens::new(of_tokens, counters, Random::for_part(seed, 4));
        let random = Random::for_part(seed, 1);
        let (holds, queue, decided) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { defect, random, now: 0, tokens, holds, queue, decided }
    }

    /// Whether it makes its mistake this time.
    fn errs(&mut self, defect: Defect) -> bool {
        self.defect == Some(defect) && self.random.one_in(6)
    }

    fn holding(&self, name: Name) -> &[Hold] {
        self.holds.get(&name).map_or(&[], Vec::as_slice)
    }

    fn holds(&self, session: usize, name: Name) -> bool {
        self.holding(name).iter().any(|hold| hold.session == session)
    }

    fn admits(&self, session: usize, name: Name, mode: Mode) -> bool {
        let others = || self.holding(name).iter().filter(|hold| hold.session != session);
        let holders = others().count() + 1;
        let own = Some(mode).filter(|_| {
            let is_ignored = self.defect == Some(Defect::IgnoresLimitOfNewcomer) && mode.limit().is_some();
            !is_ignored
        });
        let of_holders = others().map(|hold| hold.mode).filter(|mode| {
            let is_ignored = self.defect == Some(Defect::IgnoresLimitsOfHolders) && mode.limit().is_some();
            !is_ignored
        });
        of_holders.chain(own).all(|mode| self.allows(mode, holders))
    }

    fn allows(&self, mode: Mode, holders: usize) -> bool {
        let allowed = match (mode.limit(), self.defect) {
            (Some(limit), Some(Defect::LimitIsTooHigh)) => Some(limit + 1),
            (Some(limit), Some(Defect::LimitIsTooLow)) => Some(limit - 1),
            _ => mode.holders_max(),
        };
        allowed.is_none_or(|allowed| holders <= allowed as usize)
    }

    /// Whether one of the first `ahead` requests wants the name, so that a request for `mode` must
    /// wait.
    fn is_wanted(&self, name: Name, mode: Mode, ahead: usize) -> bool {
        let overtakes = self.defect == Some(Defect::LimitedOvertakesExclusive) && mode.limit().is_some();
        self.queue[..ahead].iter().any(|request| {
            request
                .wants
                .iter()
                .any(|&(wanted, of_request)| wanted == name && !(overtakes && of_request == Mode::Exclusive))
        })
    }

    fn can_have(&self, session: usize, wants: &[(Name, Mode)], ahead: usize) -> bool {
        wants
            .iter()
            .all(|&(name, mode)| self.admits(session, name, mode) && !self.is_wanted(name, mode, ahead))
    }

    fn hold(&mut self, session: usize, wants: &[(Name, Mode)], token: u64) {
        for &(name, mode) in wants {
            let holders = self.holds.entry(name).or_default();
            holders.retain(|hold| hold.session != session);
            holders.push(Hold { session, mode, since: self.now, token });
        }
    }

    fn grant(&mut self, session: usize, wants: &[(Name, Mode)]) -> u64 {
        let names: Vec<Name> = wants.iter().map(|(name, _)| *name).collect();
        let has_others = |name: &Name| self.holding(*name).iter().any(|hold| hold.session != session);
        if names.len() > 1 || names.iter().any(has_others) {
            self.tokens.contend(&names);
        }
        let token = self.tokens.next(&names);
        self.hold(session, wants, token);
        token
    }

    /// Lets the counters forget the names that nobody holds or waits for.
    fn forget_idle_names(&mut self) {
        let is_idle = |name: &Name| {
            self.holding(*name).is_empty() && !self.is_wanted(*name, Mode::Shared, self.queue.len())
        };
        let idle: Vec<Name> = self.holds.keys().copied().filter(is_idle).collect();
        idle.into_iter().for_each(|name| self.tokens.forget(name));
    }

    /// A grant that a defect makes although it must not.
    fn wrong_grant(&mut self, session: usize, wants: &[(Name, Mode)], waits: bool) -> Option<u64> {
        let (name, mode) = wants[0];
        let other_mode = self.holding(name).iter().find(|hold| hold.session != session).map(|hold| hold.mode);
        let errs = match (wants.len(), mode, other_mode) {
            (1, Mode::Exclusive, Some(Mode::Exclusive)) => self.errs(Defect::GrantsTwice),
            (1, Mode::Exclusive, Some(Mode::Shared)) => self.errs(Defect::ExclusiveWithShared),
            (1, Mode::Shared, Some(Mode::Exclusive)) => self.errs(Defect::SharedWithExclusive),
            (1, Mode::Shared, Some(Mode::Shared)) if !waits => self.defect == Some(Defect::TryOvertakes),
            (2.., ..) => {
                let free = |want: &&(Name, Mode)| self.can_have(session, &[**want], self.queue.len());
                let part: Vec<_> = wants.iter().filter(free).copied().collect();
                if !part.is_empty() && self.errs(Defect::GrantsPartOfSet) {
                    return Some(self.grant(session, &part));
                }
                false
            }
            _ => false,
        };
        errs.then(|| self.grant(session, wants))
    }

    /// Grants requests until none can be granted any more, in the order of the queue.
    fn grant_waiting(&mut self) {
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
            if !self.errs(Defect::LosesWakeup) {
                self.decided.push((request.session, request.ticket, End::Granted(token)));
            }
        }
        self.hold_for_waiting();
        self.forget_idle_names();
    }

    /// Carries out [`Defect::HoldsWhileWaiting`].
    fn hold_for_waiting(&mut self) {
        if self.defect != Some(Defect::HoldsWhileWaiting) {
            return;
        }
        for at in 0..self.queue.len() {
            let request = self.queue[at].clone();
            for want in request.wants.iter().filter(|_| request.wants.len() > 1) {
                if !self.holds(request.session, want.0) && self.can_have(request.session, &[*want], at) {
                    self.hold(request.session, &[*want], 0);
                }
            }
        }
    }

    /// Whether the session waits for itself, directly or through other sessions.
    fn closes_cycle(&self, session: usize) -> bool {
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
                // Where a limit is reached, any of the holders will do: it waits for none of them.
                let exclude = |hold: &&Hold| !mode.is_compatible_with(hold.mode);
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
        self.tokens.contend(&request.wants.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        self.queue.insert(at, request);
        if self.closes_cycle(session) {
            self.queue.remove(at);
            return Answer::Deadlock;
        }
        self.hold_for_waiting();
        Answer::Queued
    }

    fn remove_hold(&mut self, session: usize, name: Name) -> bool {
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
                    self.remove_hold(request.session, *name);
                });
            }
            self.decided.push((request.session, request.ticket, why));
        }
        self.grant_waiting();
    }
}

impl BrokerUnderTest for FaultyBroker {
    fn open(&mut self, _session: usize) {}

    fn acquire(&mut self, session: usize, wants: &[(Name, Mode)], ticket: Option<u64>) -> Answer {
        if self.can_have(session, wants, self.queue.len()) {
            return Answer::Granted(self.grant(session, wants));
        }
        if let Some(token) = self.wrong_grant(session, wants, ticket.is_some()) {
            return Answer::Granted(token);
        }
        let Some(ticket) = ticket else { return Answer::Busy };
        self.enqueue(Request { session, ticket, wants: wants.to_vec(), is_conversion: false })
    }

    fn convert(&mut self, session: usize, name: Name, mode: Mode, ticket: Option<u64>) -> Answer {
        let held = self.holding(name).iter().find(|hold| hold.session == session);
        let Some((held, token)) = held.map(|hold| (hold.mode, hold.token)) else { return Answer::NotHeld };
        let forgets = self.defect == Some(Defect::ForgetsLimitOnConversion) && mode.limit().is_some();
        let remembered = if forgets { Mode::Shared } else { mode };
        if mode >= held {
            self.hold(session, &[(name, remembered)], token);
            self.grant_waiting();
            return Answer::Granted(token);
        }
        if self.admits(session, name, mode) || self.defect == Some(Defect::ConvertsWithOtherHolders) {
            return Answer::Granted(self.grant(session, &[(name, remembered)]));
        }
        let Some(ticket) = ticket else { return Answer::Busy };
        self.enqueue(Request { session, ticket, wants: vec![(name, mode)], is_conversion: true })
    }

    fn release(&mut self, session: usize, name: Name) -> bool {
        if self.remove_hold(session, name) {
            self.grant_waiting();
            return true;
        }
        if self.defect == Some(Defect::ReleasesForNonHolder) && !self.holding(name).is_empty() {
            self.holds.remove(&name);
            self.grant_waiting();
            return true;
        }
        self.defect == Some(Defect::GrantsPartOfSet) || self.defect == Some(Defect::ConfirmsFalseRelease)
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
        if self.defect == Some(Defect::TakesOwnResetForClientEnd) {
            self.end(session);
        }
    }

    fn end(&mut self, session: usize) {
        if self.defect == Some(Defect::KeepsLocksOfEndedSessions) {
            return;
        }
        self.holds.values_mut().for_each(|holders| holders.retain(|hold| hold.session != session));
        self.withdraw(|request| request.session == session, End::Lost);
    }

    fn pass_time(&mut self, now: Nanos) {
        self.now = now;
        if self.defect == Some(Defect::ReleasesByTimer) {
            let long = |hold: &Hold| now.saturating_sub(hold.since) > TIMER;
            self.holds.values_mut().for_each(|holders| holders.retain(|hold| !long(hold)));
            self.grant_waiting();
        }
    }

    fn decided(&mut self) -> Vec<(usize, u64, End)> {
        std::mem::take(&mut self.decided)
    }
}
