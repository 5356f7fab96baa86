//! Chooses what a client does next. The choices are the same for clients of every kind: simulated,
//! threads or processes. Carries out nothing.

use serde::{Deserialize, Serialize};

use crate::history::{MILLISECOND, Mode, Name, Nanos};
use crate::random::Random;

/// How often clients do which steps, in percent unless stated otherwise.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Mix {
    /// The number of names to lock. The first two are requested much more often than the others.
    pub(crate) names: u32,
    pub(crate) shared: u64,
    /// The share of limited locks; what is neither shared nor limited is exclusive.
    pub(crate) limited: u64,
    pub(crate) sets: u64,
    /// The share of acquires that do not wait, and of those that wait without a time limit.
    pub(crate) tries: u64,
    pub(crate) unlimited: u64,
    /// The share of waiting acquires whose client learns that they are queued.
    pub(crate) acked: u64,
    pub(crate) converts: u64,
    pub(crate) inspects: u64,
    pub(crate) stray_releases: u64,
    /// The shortest and longest time limit, time of holding a lock, and time without one.
    pub(crate) limit: (Nanos, Nanos),
    pub(crate) hold: (Nanos, Nanos),
    pub(crate) idle: (Nanos, Nanos),
}

impl Mix {
    /// One exclusive lock at a time.
    pub(crate) const MUTEX: Self = Self {
        names: 4,
        shared: 0,
        limited: 0,
        sets: 0,
        tries: 20,
        unlimited: 40,
        acked: 50,
        converts: 0,
        inspects: 5,
        stray_releases: 3,
        limit: (MILLISECOND, 20 * MILLISECOND),
        hold: (0, 2 * MILLISECOND),
        idle: (0, MILLISECOND),
    };

    /// Shared and exclusive, with conversions.
    pub(crate) const READ_WRITE: Self = Self { shared: 60, converts: 25, ..Self::MUTEX };

    /// Acquires of several names at once, in addition to all of that.
    pub(crate) const SETS: Self =
        Self { names: 5, shared: 25, sets: 40, converts: 10, inspects: 12, ..Self::MUTEX };

    /// Limited locks, together with those in the other modes, with conversions and sets.
    pub(crate) const LIMITED: Self =
        Self { names: 3, shared: 15, limited: 65, sets: 10, converts: 25, inspects: 8, ..Self::MUTEX };
}

/// The limits that limited locks have here: fewer than there are clients, so that they are reached.
const LIMITS: [u32; 3] = [2, 3, 4];

/// What a client does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Acquire {
        wants: Vec<(Name, Mode)>,
        limit: Option<Nanos>,
        /// Whether the client finds out when the request is queued.
        acked: bool,
    },
    Convert {
        name: Name,
        mode: Mode,
        limit: Option<Nanos>,
    },
    /// Releases everything the client holds.
    Release,
    Inspect(Name),
    /// Releases a name that the client does not hold.
    StrayRelease(Name),
}

/// The choices of one client.
pub(crate) struct Plan {
    pub(crate) random: Random,
    pub(crate) mix: Mix,
}

impl Plan {
    /// The next step of a client that holds `held`: one lock or several, all from one acquire.
    pub(crate) fn next(&mut self, held: &[(Name, Mode)]) -> Step {
        let Mix { converts, inspects, stray_releases, .. } = self.mix;
        if self.random.percent(inspects) {
            return Step::Inspect(self.name());
        }
        match *held {
            [] => {
                if self.random.percent(stray_releases) {
                    return Step::StrayRelease(self.name());
                }
                self.acquire()
            }
            [(name, mode)] if self.random.percent(converts) => {
                let mode = self.other_mode(mode);
                Step::Convert { name, mode, limit: self.limit_of_conversion(mode) }
            }
            _ => Step::Release,
        }
    }

    fn acquire(&mut self) -> Step {
        let wants = self.wants();
        let limit = self.limit();
        let acked = limit != Some(0) && self.random.percent(self.mix.acked);
        Step::Acquire { wants, limit, acked }
    }

    fn wants(&mut self) -> Vec<(Name, Mode)> {
        let count = if self.random.percent(self.mix.sets) { self.random.between(2, 3) } else { 1 };
        let mut wants: Vec<(Name, Mode)> = Vec::new();
        while (wants.len() as u64) < count.min(u64::from(self.mix.names)) {
            let name = self.name();
            if wants.iter().all(|(wanted, _)| *wanted != name) {
                let mode = self.mode();
                wants.push((name, mode));
            }
        }
        wants
    }

    fn mode(&mut self) -> Mode {
        let Mix { shared, limited, .. } = self.mix;
        match self.random.below(100) {
            roll if roll < shared => Mode::Shared,
            roll if roll < shared + limited => self.random.one_of(&LIMITS.map(limited_to)),
            _ => Mode::Exclusive,
        }
    }

    /// The mode that a lock held in `mode` is converted to.
    fn other_mode(&mut self, mode: Mode) -> Mode {
        let mut others = vec![Mode::Exclusive, Mode::Shared];
        if self.mix.limited > 0 {
            others.extend(LIMITS.map(limited_to));
        }
        others.retain(|other| *other != mode);
        self.random.one_of(&others)
    }

    /// Chooses one of the first two names half of the time.
    fn name(&mut self) -> Name {
        let hot = self.random.percent(50);
        let names = if hot { self.mix.names.min(2) } else { self.mix.names };
        u32::try_from(self.random.below(u64::from(names))).unwrap()
    }

    fn limit(&mut self) -> Option<Nanos> {
        let roll = self.random.below(100);
        match self.mix {
            Mix { tries, .. } if roll < tries => Some(0),
            Mix { tries, unlimited, .. } if roll < tries + unlimited => None,
            Mix { limit: (low, high), .. } => Some(self.random.between(low, high)),
        }
    }

    /// Sessions that hold a lock and wait until there are no more holders than their new limits
    /// allow can wait for each other, and a broker does not find that. So they wait for a limited
    /// time.
    fn limit_of_conversion(&mut self, mode: Mode) -> Option<Nanos> {
        let limit = self.limit();
        if mode.limit().is_some() { limit.or(Some(self.mix.limit.1)) } else { limit }
    }

    /// How long to pause before the next step.
    pub(crate) fn pause(&mut self, holds: bool) -> Nanos {
        let (low, high) = if holds { self.mix.hold } else { self.mix.idle };
        self.random.between(low, high)
    }
}

fn limited_to(holders: u32) -> Mode {
    Mode::at_most(holders).expect("a limit in the range of limits")
}
