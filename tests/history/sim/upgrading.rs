//! The real broker, replaced again and again by a broker that is made from its snapshot, as in an
//! upgrade in place. On the way the snapshot can be given a defect, which the checker must find.

use lockd::broker::{BrokerSnapshot, HolderSnapshot, LockSnapshot, Mode, WaitSnapshot};

use super::broker_under_test::{Answer, BrokerUnderTest, End};
use super::real::RealBroker;
use crate::history::{Name, Nanos};
use crate::random::Random;

/// How often a defective upgrade makes its mistake, where it can: once in this many times.
const ERR_ONE_IN: u64 = 2;

/// What a defective upgrade does to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpgradeDefect {
    /// It forgets a request that waits.
    LosesWait,
    /// It forgets a lock that is held.
    LosesHolder,
    /// It grants an exclusive lock that is held to a request that waits for it.
    GrantsTwice,
    /// It begins again with the tokens, and gives those of held locks anew.
    ForgetsTokens,
    /// It changes the places of two requests in a queue.
    ReordersQueue,
    /// It restores a holder in shared mode, whatever its mode was.
    WeakensMode,
}

/// A grant that a defect makes, and of which its client must be told.
struct WrongGrant {
    session: usize,
    ticket: u64,
    token: u64,
}

/// The broker and its upgrades.
pub(crate) struct UpgradingBroker {
    broker: RealBroker,
    defect: Option<UpgradeDefect>,
    random: Random,
    /// The broker is replaced before one in this many events.
    one_in: u64,
    pub(crate) upgrades: usize,
    /// How many of the upgrades made the mistake.
    pub(crate) mistakes: usize,
}

impl UpgradingBroker {
    pub(crate) fn new(defect: Option<UpgradeDefect>, seed: u64, one_in: u64) -> Self {
        let (broker, random) = (RealBroker::default(), Random::for_part(seed, 5));
        Self { broker, defect, random, one_in, upgrades: 0, mistakes: 0 }
    }

    fn upgrade(&mut self) {
        self.upgrades += 1;
        let snapshot = self.broker.snapshot();
        if let Some(defect) = self.defect
            && self.random.one_in(ERR_ONE_IN)
        {
            let mut spoiled = snapshot.clone();
            // A state that cannot be is refused; then the mistake is not made.
            if let Some(grants) = defect.spoil(&mut spoiled, &mut self.random)
                && self.broker.become_restored(&spoiled).is_ok()
            {
                self.mistakes += 1;
                for WrongGrant { session, ticket, token } in grants {
                    self.broker.report_grant(session, ticket, token);
                }
                return;
            }
        }
        self.broker.become_restored(&snapshot).expect("a broker takes its own state back");
    }
}

impl UpgradeDefect {
    /// Makes the mistake. `None`: there is nothing to do it to.
    fn spoil(self, state: &mut BrokerSnapshot, random: &mut Random) -> Option<Vec<WrongGrant>> {
        match self {
            Self::LosesWait => {
                let at = choose(random, 0..state.waits.len())?;
                let wait = state.waits.remove(at);
                // A lock that nobody holds or waits for any more is not listed.
                let wanted = wait.wants.iter().map(|want| want.lock).collect::<Vec<_>>();
                let is_idle = |&lock: &usize| state.locks[lock].holders.is_empty() && !is_wanted(state, lock);
                wanted.iter().all(|lock| !is_idle(lock)).then(Vec::new)
            }
            Self::LosesHolder => {
                let held = (0..state.locks.len())
                    .filter(|&lock| state.locks[lock].holders.len() == 1 && !is_wanted(state, lock));
                let lock = choose(random, held)?;
                state.locks.remove(lock);
                let wants = state.waits.iter_mut().flat_map(|wait| &mut wait.wants);
                wants.filter(|want| want.lock > lock).for_each(|want| want.lock -= 1);
                Some(Vec::new())
            }
            Self::GrantsTwice => grant_twice(state, random),
            Self::ForgetsTokens => {
                state.next_token = 1;
                for holder in state.locks.iter_mut().flat_map(|lock| &mut lock.holders) {
                    holder.token = state.next_token;
                    state.next_token += 1;
                }
                Some(Vec::new())
            }
            Self::ReordersQueue => {
                let (first, second) = two_of_one_queue(state)?;
                state.waits.swap(first, second);
                // The order in which sessions wait for each other is that of their ranks.
                let of = |at: usize| state.waits[at].session;
                let (one, other) = (of(first), of(second));
                let rank = state.sessions[one].rank;
                state.sessions[one].rank = state.sessions[other].rank;
                state.sessions[other].rank = rank;
                Some(Vec::new())
            }
            Self::WeakensMode => {
                let strict = (0..state.locks.len()).filter(|&lock| {
                    !is_wanted(state, lock)
                        && state.locks[lock].holders.iter().any(|it| it.mode != Mode::Shared)
                });
                let lock = choose(random, strict)?;
                state.locks[lock].holders.iter_mut().for_each(|holder| holder.mode = Mode::Shared);
                Some(Vec::new())
            }
        }
    }
}

/// One of these, if there is any.
fn choose(random: &mut Random, from: impl Iterator<Item = usize>) -> Option<usize> {
    let all: Vec<usize> = from.collect();
    (!all.is_empty()).then(|| random.one_of(&all))
}

fn is_wanted(state: &BrokerSnapshot, lock: usize) -> bool {
    state.waits.iter().any(|wait| wait.wants.iter().any(|want| want.lock == lock))
}

fn holds_anything(state: &BrokerSnapshot, session: usize) -> bool {
    state.locks.iter().any(|lock| lock.holders.iter().any(|holder| holder.session == session))
}

/// Gives an exclusive lock to the first request that waits for it, instead of its holder.
fn grant_twice(state: &mut BrokerSnapshot, random: &mut Random) -> Option<Vec<WrongGrant>> {
    let is_held_by_one =
        |lock: &LockSnapshot| matches!(lock.holders[..], [HolderSnapshot { mode: Mode::Exclusive, .. }]);
    let is_first = |at: usize, lock: usize| {
        !state.waits[..at].iter().any(|wait| wait.wants.iter().any(|want| want.lock == lock))
    };
    let can_be = (0..state.waits.len()).filter(|&at| match &state.waits[at].wants[..] {
        [want] => {
            want.mode == Mode::Exclusive && is_held_by_one(&state.locks[want.lock]) && is_first(at, want.lock)
        }
        _ => false,
    });
    let at = choose(random, can_be)?;
    let WaitSnapshot { session, ticket, wants, .. } = state.waits.remove(at);
    let token = state.next_token;
    state.next_token += 1;
    let holder = &mut state.locks[wants[0].lock].holders[0];
    (holder.session, holder.token) = (session, token);
    let session = state.sessions[session].address.parse().expect("the session's number");
    Some(vec![WrongGrant { session, ticket, token }])
}

/// Two requests that wait for the same lock in the same mode, and whose sessions hold nothing.
fn two_of_one_queue(state: &BrokerSnapshot) -> Option<(usize, usize)> {
    let is_simple = |wait: &WaitSnapshot| wait.wants.len() == 1 && !holds_anything(state, wait.session);
    let simple: Vec<usize> = (0..state.waits.len()).filter(|&at| is_simple(&state.waits[at])).collect();
    let pairs = simple.iter().flat_map(|&one| simple.iter().map(move |&other| (one, other)));
    pairs.into_iter().find(|&(one, other)| one < other && state.waits[one].wants == state.waits[other].wants)
}

impl BrokerUnderTest for UpgradingBroker {
    fn open(&mut self, session: usize) {
        self.broker.open(session);
    }

    fn acquire(&mut self, session: usize, wants: &[(Name, Mode)], ticket: Option<u64>) -> Answer {
        self.broker.acquire(session, wants, ticket)
    }

    fn convert(&mut self, session: usize, name: Name, mode: Mode, ticket: Option<u64>) -> Answer {
        self.broker.convert(session, name, mode, ticket)
    }

    fn release(&mut self, session: usize, name: Name) -> bool {
        self.broker.release(session, name)
    }

    fn cancel(&mut self, session: usize, ticket: u64) {
        self.broker.cancel(session, ticket);
    }

    fn holders(&mut self, session: usize, name: Name) -> u32 {
        self.broker.holders(session, name)
    }

    fn hang_up(&mut self, session: usize) {
        self.broker.hang_up(session);
    }

    fn own_reset(&mut self, session: usize) {
        self.broker.own_reset(session);
    }

    fn end(&mut self, session: usize) {
        self.broker.end(session);
    }

    fn pass_time(&mut self, now: Nanos) {
        self.broker.pass_time(now);
        if self.random.one_in(self.one_in) {
            self.upgrade();
        }
    }

    fn decided(&mut self) -> Vec<(usize, u64, End)> {
        self.broker.decided()
    }
}
