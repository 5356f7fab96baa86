//! What a client does next: the same choices for clients of every kind, simulated, threads or
//! processes. Chooses; carries out nothing.

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::history::{MILLISECOND, Mode, Name, Nanos};

/// How often clients do what. Parts of a hundred where nothing else is said.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Mix {
    /// How many names there are to lock; the first few are asked for much more often than the
    /// others.
    pub(crate) names: u32,
    pub(crate) shared: u64,
    pub(crate) sets: u64,
    /// Of the acquires, those that do not wait, and those that wait without limit.
    pub(crate) tries: u64,
    pub(crate) patient: u64,
    /// Of the acquires that wait, those whose client learns that they are queued.
    pub(crate) acked: u64,
    pub(crate) converts: u64,
    pub(crate) inspects: u64,
    pub(crate) strays: u64,
    /// From what to what.
    pub(crate) limit: (Nanos, Nanos),
    pub(crate) hold: (Nanos, Nanos),
    pub(crate) idle: (Nanos, Nanos),
}

impl Mix {
    /// One exclusive lock at a time.
    pub(crate) const MUTEX: Self = Self {
        names: 4,
        shared: 0,
        sets: 0,
        tries: 20,
        patient: 40,
        acked: 50,
        converts: 0,
        inspects: 5,
        strays: 3,
        limit: (MILLISECOND, 20 * MILLISECOND),
        hold: (0, 2 * MILLISECOND),
        idle: (0, MILLISECOND),
    };

    /// Shared and exclusive, with conversions.
    pub(crate) const READ_WRITE: Self = Self { shared: 60, converts: 25, ..Self::MUTEX };

    /// Several at once beside all of that.
    pub(crate) const SETS: Self =
        Self { names: 5, shared: 25, sets: 40, converts: 10, inspects: 12, ..Self::MUTEX };
}

/// What a client is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Acquire {
        wants: Vec<(Name, Mode)>,
        limit: Option<Nanos>,
        /// Whether to find out when the request is queued.
        acked: bool,
    },
    Convert {
        name: Name,
        mode: Mode,
        limit: Option<Nanos>,
    },
    /// Everything it holds.
    Release,
    Inspect(Name),
    /// To release what it does not hold.
    Stray(Name),
}

/// Chooses for one client.
pub(crate) struct Plan {
    pub(crate) dice: Dice,
    pub(crate) mix: Mix,
}

impl Plan {
    /// The next step of a client that holds this: one lock or several, all from one acquire.
    pub(crate) fn next(&mut self, held: &[(Name, Mode)]) -> Step {
        let Mix { converts, inspects, strays, .. } = self.mix;
        if self.dice.percent(inspects) {
            return Step::Inspect(self.name());
        }
        match *held {
            [] => {
                if self.dice.percent(strays) {
                    return Step::Stray(self.name());
                }
                self.acquire()
            }
            [(name, mode)] if self.dice.percent(converts) => {
                let mode = if mode == Mode::Shared { Mode::Exclusive } else { Mode::Shared };
                Step::Convert { name, mode, limit: self.limit() }
            }
            _ => Step::Release,
        }
    }

    fn acquire(&mut self) -> Step {
        let wants = self.wants();
        let limit = self.limit();
        let acked = limit != Some(0) && self.dice.percent(self.mix.acked);
        Step::Acquire { wants, limit, acked }
    }

    fn wants(&mut self) -> Vec<(Name, Mode)> {
        let count = if self.dice.percent(self.mix.sets) { self.dice.between(2, 3) } else { 1 };
        let mut wants: Vec<(Name, Mode)> = Vec::new();
        while (wants.len() as u64) < count.min(u64::from(self.mix.names)) {
            let name = self.name();
            if wants.iter().all(|(wanted, _)| *wanted != name) {
                let shared = self.dice.percent(self.mix.shared);
                wants.push((name, if shared { Mode::Shared } else { Mode::Exclusive }));
            }
        }
        wants
    }

    /// Half of the time one of the first two.
    fn name(&mut self) -> Name {
        let hot = self.dice.percent(50);
        let names = if hot { self.mix.names.min(2) } else { self.mix.names };
        u32::try_from(self.dice.below(u64::from(names))).unwrap()
    }

    fn limit(&mut self) -> Option<Nanos> {
        let roll = self.dice.below(100);
        match self.mix {
            Mix { tries, .. } if roll < tries => Some(0),
            Mix { tries, patient, .. } if roll < tries + patient => None,
            Mix { limit: (low, high), .. } => Some(self.dice.between(low, high)),
        }
    }

    /// How long to stay as it is before the next step.
    pub(crate) fn pause(&mut self, holds: bool) -> Nanos {
        let (low, high) = if holds { self.mix.hold } else { self.mix.idle };
        self.dice.between(low, high)
    }
}
